"""Batch statistics at a stage boundary: reset, or re-estimated."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp


def reestimate_batch_stats(statistics: Callable[[Any, Any], Any], batch_stats: Any, batches: Iterable[Any]) -> Any:
    """Compute batch statistics as the plain mean over all `batches`, independent of the network's momentum.

    Args:
      statistics: `batch_stats, batch -> batch_stats` after one batch in training mode, affine in its first argument.
      batch_stats: a tree of the right shapes.
      batches: passed to `statistics` one at a time.

    Returns:
      A tree like `batch_stats`.
    """
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    sums, count, kept = zeros, 0, None
    for batch in batches:
        from_zeros = statistics(zeros, batch)
        if kept is None:
            # The running average is kept * old + (1 - kept) * batch, so two old values determine `kept`. The second is
            # no smaller than the batch's own, or large activations would round `kept` away.
            probe = jax.tree.map(lambda value: 1 + jnp.abs(value), from_zeros)
            from_probe = statistics(probe, batch)
            kept = jax.tree.map(lambda new, zero, old: (new - zero) / old, from_probe, from_zeros, probe)
        sums = jax.tree.map(jnp.add, sums, from_zeros)
        count += 1
    return jax.tree.map(lambda total, momentum: total / count / (1 - momentum), sums, kept)


def initial_batch_stats(batch_stats: Any) -> Any:
    """Return running means of 0 and running variances of 1, in the shapes of `batch_stats`."""

    def value(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return jnp.full_like(leaf, 1.0 if jax.tree_util.keystr(path[-1:], simple=True) == "var" else 0.0)

    return jax.tree_util.tree_map_with_path(value, batch_stats)
