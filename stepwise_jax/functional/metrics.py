"""Exact scores of the test set from masked counts."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stepwise_jax.functional.losses import cross_entropy
from stepwise_jax.functional.state import TrainState
from stepwise_jax.functional.train_step import Batch


class Scores(NamedTuple):
    """Of a whole split; accuracies are fractions."""

    top1: float
    top5: float
    loss: float


def ranks(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many classes come before the right one: logits [b, C] and labels [b] to int32 [b].

    Equal logits count in the order of the classes, as top-k takes them; a NaN counts as before the right class, so
    that a network that diverged is never scored as right.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    classes = jnp.arange(logits.shape[1])
    tied_before = (logits == own) & (classes < labels[:, None])
    before = ~(logits <= own) | tied_before
    return jnp.sum(before, axis=1)


def make_count(network: nn.Module) -> Callable[[TrainState, Batch, jax.Array], dict[str, jax.Array]]:
    """A pure function `state, batch, mask -> {"top1", "top5", "loss"}`, sums over the masked examples."""

    def count(state: TrainState, batch: Batch, mask: jax.Array) -> dict[str, jax.Array]:
        logits = apply(network, state, batch.images)
        rank = ranks(logits, batch.labels)
        loss = jnp.where(mask, cross_entropy(logits, batch.labels), 0.0)
        five = min(5, logits.shape[1])
        return {"top1": jnp.sum(mask & (rank < 1)), "top5": jnp.sum(mask & (rank < five)), "loss": jnp.sum(loss)}

    return count


def apply(network: nn.Module, state: TrainState, images: jax.Array) -> jax.Array:
    """Logits float32 [b, C] in evaluation mode."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return jnp.asarray(network.apply(variables, images, train=False)).astype(jnp.float32)


def total(counts: Iterable[dict[str, jax.Array]], examples: int) -> Scores:
    """The scores of a split from its batches' sums; added on the host, where integers are exact."""
    sums = jax.device_get(list(counts))
    top1, top5 = (sum(int(batch[name]) for batch in sums) for name in ("top1", "top5"))
    loss = float(np.sum([np.float64(batch["loss"]) for batch in sums]))
    return Scores(top1 / examples, top5 / examples, loss / examples)
