"""Exact scores of the test set by masked counts, class probabilities, and batch statistics measured anew."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stepwise_jax.state import TrainState
from stepwise_jax.train_step import Batch, cross_entropy


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


def reestimate(statistics: Callable[[Any, Any], Any], batch_stats: Any, batches: Iterable[Any]) -> Any:
    """Batch statistics as the plain mean over all `batches`, whatever the network's own averaging is.

    Args:
      statistics: `batch_stats, batch -> batch_stats` after one batch in training mode, affine in its first argument.
      batch_stats: a tree of the right shapes.
      batches: what `statistics` takes, one at a time.
    """
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    sums, count, kept = zeros, 0, None
    for rows in batches:
        from_zeros = statistics(zeros, rows)
        if kept is None:
            # The running average is kept * old + (1 - kept) * batch: two old values tell `kept`. The second is no
            # smaller than the batch's own, or large activations would round `kept` away.
            probe = jax.tree.map(lambda value: 1 + jnp.abs(value), from_zeros)
            from_probe = statistics(probe, rows)
            kept = jax.tree.map(lambda new, zero, old: (new - zero) / old, from_probe, from_zeros, probe)
        sums = jax.tree.map(jnp.add, sums, from_zeros)
        count += 1
    return jax.tree.map(lambda total_, share: total_ / count / (1 - share), sums, kept)
