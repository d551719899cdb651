"""Batch statistics at a stage boundary: reset, or estimated anew."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp


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


def initial_statistics(batch_stats: Any) -> Any:
    """Running means of 0 and running variances of 1."""

    def value(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return jnp.full_like(leaf, 1.0 if jax.tree_util.keystr(path[-1:], simple=True) == "var" else 0.0)

    return jax.tree_util.tree_map_with_path(value, batch_stats)
