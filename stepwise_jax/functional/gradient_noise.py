"""Gradient noise at fixed weights: tr Sigma, |G|^2 and their ratio B_simple, with jackknife intervals.

McCandlish et al., "An empirical model of large-batch training" (2018), Appendix A.1. The gradient of the loss of one
example has mean G and covariance Sigma. A microbatch's mean gradient then has the expected squared norm
|G|^2 + tr(Sigma) / b, so that two batch sizes give both unknowns: b_s, that of the microbatches, and b_B, of all of
them together. Both are estimated without bias if the microbatches are independent, and B_simple is the ratio of the
two estimates, not the mean of ratios.

The jackknife leaves out one group of microbatches at a time. That takes no gradient twice: without the microbatches of
group j, the squared norm of the sum of all gradients T is |T|^2 - 2 T.T_j + |T_j|^2, where T_j is the sum of the
group's. So two products for each group do, and a few gradients of memory, whatever the number of microbatches.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy

CONFIDENCE = 0.95

GROUPS = 16
"""Groups of microbatches that the jackknife leaves out one by one: enough for an interval, few enough to keep."""


class GradientGroup(NamedTuple):
    """Sums over the microbatches of a group, which all have the same size."""

    total: Any
    """Sum of their mean gradients: a tree of arrays."""
    squares: float
    """Sum of the squared norms of their mean gradients."""
    microbatches: int


class Estimate(NamedTuple):
    """An estimate with its 95 % interval; NaN for what the measurement does not identify."""

    value: float
    low: float
    high: float


class GradientNoise(NamedTuple):
    """Measured noise of the gradient of one example."""

    trace: Estimate
    """tr Sigma: total variance of the gradient of one example."""
    squared_norm: Estimate
    """|G|^2: squared norm of the mean gradient. Noise can make it negative."""
    b_simple: Estimate
    """tr Sigma / |G|^2, in examples; not identified if |G|^2 is not positive, nor is `high` where |G|^2 may be 0."""


def estimate_noise(groups: Sequence[GradientGroup], microbatch_size: int) -> GradientNoise:
    """Estimate the gradient noise from at least three groups, each with as many microbatches as the others.

    Args:
      groups: sums over independent microbatches.
      microbatch_size: b_s, examples in a microbatch.
    """
    squares, (with_all, with_own) = np.array([group.squares for group in groups], np.float64), _products(groups)
    count = groups[0].microbatches * len(groups)
    whole = _moments(squares.sum(), with_all.sum(), count, microbatch_size)
    others = with_all.sum() - 2 * with_all + with_own
    without = _moments(squares.sum() - squares, others, count - groups[0].microbatches, microbatch_size)
    trace, squared_norm = (_estimate(*pair) for pair in zip(whole, without, strict=True))
    return GradientNoise(trace, squared_norm, _ratio(whole, without))


def _products(groups: Sequence[GradientGroup]) -> np.ndarray:
    """The inner products T_j.T and T_j.T_j of each group j, in float64 [2, groups]."""
    products = np.zeros((2, len(groups)))
    for leaves in zip(*(jax.tree.leaves(group.total) for group in groups), strict=True):
        sums = [np.asarray(leaf, np.float64) for leaf in leaves]
        total = sum(sums)
        # Not `np.vdot`: its result depends on the number of threads.
        products += [[(each * total).sum() for each in sums], [(each * each).sum() for each in sums]]
    return products


def _moments(squares: Any, total_square: Any, microbatches: int, size: int) -> tuple[Any, Any]:
    """Estimate tr Sigma and |G|^2 from the sum of squared norms, and the squared norm of the sum, of mean gradients."""
    small, large = squares / microbatches, total_square / microbatches**2
    everything = microbatches * size
    trace = (small - large) / (1 / size - 1 / everything)
    return trace, (everything * large - size * small) / (everything - size)


def _estimate(whole: Any, without: np.ndarray) -> Estimate:
    """Return an estimate with its jackknife interval, by Student's t, from the estimates without each group [J]."""
    groups = len(without)
    error = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    reach = scipy.special.stdtrit(groups - 1, (1 + CONFIDENCE) / 2) * error
    return Estimate(float(whole), float(whole - reach), float(whole + reach))


def _ratio(whole: tuple[Any, Any], without: tuple[Any, Any]) -> Estimate:
    """Return B_simple. Its interval is that of 1 / B_simple, which stays finite where |G|^2 may be 0, turned over."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = _estimate(whole[1] / whole[0], without[1] / without[0])
    value, high, low = (1 / each if each > 0 else math.nan for each in inverse)
    return Estimate(value, low, high)
