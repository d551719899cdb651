"""Exact scores of the test set: sums over masked examples, for any batch size and any number of devices."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from stepwise_jax.functional.losses import Loss, cross_entropy
from stepwise_jax.functional.state import TrainState, averaged_variables, trained_variables
from stepwise_jax.functional.train_step import Batch


class Metric(NamedTuple):
    """A score of a whole split, computed from sums over its examples."""

    per_example: Callable[[jax.Array, jax.Array], jax.Array]
    """`logits float32 [b, C], labels int [b] -> [b]` or `[b, ...]`: what is summed over the examples."""
    from_sums: Callable[[np.ndarray, int], float] = lambda sums, examples: float(sums / examples)
    """`sums, examples -> score`: the mean, by default."""

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Return `per_example` of a batch."""
        return self.per_example(logits, labels)


MetricFunction = Callable[[jax.Array, jax.Array], jax.Array]
"""`logits float32 [b, C], labels int [b] -> [b]`: its mean over the split is the score."""


def as_metric(metric: Metric | MetricFunction) -> Metric:
    """Return a metric as it is, and a function as the metric of its mean."""
    return metric if isinstance(metric, Metric) else Metric(metric)


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


def top(k: int) -> MetricFunction:
    """Top-k accuracy: whether the correct class is among the k most probable ones, bool [b]."""
    return lambda logits, labels: label_ranks(logits, labels) < k


def expected_calibration_error(bins: int = 15) -> Metric:
    """How far confidence and accuracy differ, on average over bins of equal width: Guo et al. (2017), Eq. 3."""

    def per_example(logits: jax.Array, labels: jax.Array) -> jax.Array:
        confidence = jax.nn.softmax(logits).max(axis=-1)
        own = jax.nn.one_hot(jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1).astype(jnp.int32), bins)
        return own * (confidence - (label_ranks(logits, labels) < 1))[:, None]

    return Metric(per_example, lambda sums, examples: float(np.abs(sums).sum() / examples))


METRICS: dict[str, Metric | MetricFunction] = {"calibration_error": expected_calibration_error()}
"""The metrics that `evaluation.metrics` can name, beside those that every run has."""


def make_metrics(
    num_classes: int, loss: Loss | None = None, others: Mapping[str, Metric | MetricFunction] | None = None
) -> dict[str, Metric]:
    """Return the metrics of a run: top1, top5 where there are more than five classes, loss, and `others`."""
    five: dict[str, MetricFunction] = {"top5": top(5)} if num_classes > 5 else {}
    metrics = {"top1": top(1), **five, "loss": loss or cross_entropy(), **(others or {})}
    return {name: as_metric(metric) for name, metric in metrics.items()}


def make_eval_step(
    network: nn.Module, metrics: Mapping[str, Metric]
) -> Callable[[TrainState, Batch, jax.Array], dict[str, jax.Array]]:
    """Return a pure function `state, batch, mask bool [b] -> sums`: of each metric, over the masked examples.

    Where the state has averaged weights, their sums stand beside the others as `ema_top1`, `ema_loss`, and so on.
    """

    def count(state: TrainState, batch: Batch, mask: jax.Array) -> dict[str, jax.Array]:
        sums = _sums(metrics, _logits(network, trained_variables(state), batch.images), batch.labels, mask)
        if state.ema is None:
            return sums
        averaged = _sums(metrics, _logits(network, averaged_variables(state), batch.images), batch.labels, mask)
        return sums | {f"ema_{name}": value for name, value in averaged.items()}

    return count


def _sums(metrics: Mapping[str, Metric], logits: jax.Array, labels: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    return {name: _masked_sum(metric.per_example(logits, labels), mask) for name, metric in metrics.items()}


def _masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Sum [b, ...] over the examples that the mask [b] selects; a NaN outside of it counts for nothing."""
    selected = mask.reshape(mask.shape + (1,) * (values.ndim - 1))
    return jnp.sum(jnp.where(selected, values, jnp.zeros((), values.dtype)), axis=0)


def eval_logits(network: nn.Module, state: TrainState, images: jax.Array) -> jax.Array:
    """Apply the network in evaluation mode; returns float32 logits [b, C]."""
    return _logits(network, trained_variables(state), images)


def _logits(network: nn.Module, variables: dict[str, Any], images: jax.Array) -> jax.Array:
    return jnp.asarray(network.apply(variables, images, train=False)).astype(jnp.float32)


def scores_from_sums(
    metrics: Mapping[str, Metric], sums: Iterable[Mapping[str, jax.Array]], examples: int
) -> dict[str, float]:
    """Compute the scores of a split from the sums of its batches, added on the host in float64, where counts are exact.

    Returns:
      The score of each metric, and of averaged weights as `ema_NAME`; accuracies are fractions.
    """
    batches = jax.device_get(list(sums))
    named = {**metrics, **{f"ema_{name}": metric for name, metric in metrics.items()}}
    totals = {
        name: np.sum([np.asarray(batch[name], np.float64) for batch in batches], axis=0)
        for name in named
        if name in batches[0]
    }
    return {name: named[name].from_sums(total, examples) for name, total in totals.items()}
