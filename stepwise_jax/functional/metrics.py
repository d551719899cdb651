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
    """Scores of a whole split; accuracies are fractions."""

    top1: float
    top5: float
    loss: float


def label_ranks(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Rank of the correct class, from 0: logits [b, C] and labels [b] to int32 [b].

    Ties are broken by class index, as in top-k. A NaN ranks before the correct class, so a diverged network never
    scores as correct.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    classes = jnp.arange(logits.shape[1])
    tied_before = (logits == own) & (classes < labels[:, None])
    before = ~(logits <= own) | tied_before
    return jnp.sum(before, axis=1)


def make_eval_step(network: nn.Module) -> Callable[[TrainState, Batch, jax.Array], dict[str, jax.Array]]:
    """Return a pure function `state, batch, mask -> {"top1", "top5", "loss"}`: sums over the masked examples."""

    def count(state: TrainState, batch: Batch, mask: jax.Array) -> dict[str, jax.Array]:
        logits = eval_logits(network, state, batch.images)
        rank = label_ranks(logits, batch.labels)
        loss = jnp.where(mask, cross_entropy(logits, batch.labels), 0.0)
        five = min(5, logits.shape[1])
        return {"top1": jnp.sum(mask & (rank < 1)), "top5": jnp.sum(mask & (rank < five)), "loss": jnp.sum(loss)}

    return count


def eval_logits(network: nn.Module, state: TrainState, images: jax.Array) -> jax.Array:
    """Apply the network in evaluation mode; returns float32 logits [b, C]."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return jnp.asarray(network.apply(variables, images, train=False)).astype(jnp.float32)


def scores_from_counts(counts: Iterable[dict[str, jax.Array]], examples: int) -> Scores:
    """Compute the scores of a split from the sums of its batches, added on the host, where integers are exact."""
    sums = jax.device_get(list(counts))
    top1, top5 = (sum(int(batch[name]) for batch in sums) for name in ("top1", "top5"))
    loss = float(np.sum([np.float64(batch["loss"]) for batch in sums]))
    return Scores(top1 / examples, top5 / examples, loss / examples)
