"""Power of paired comparisons: how many seeds show a difference, or show that there is none beyond a margin."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import scipy

MOST_SEEDS = 1000
"""Larger numbers of seeds are not searched: nobody would train them."""


@cache
def _nodes_and_weights() -> tuple[np.ndarray, np.ndarray]:
    """Of Gauss and Legendre's quadrature on [-1, 1]."""
    return scipy.special.roots_legendre(200)


def difference_power(deviation: float, difference: float, seeds: int, alpha: float = 0.05) -> float:
    """The probability that a two-sided paired t test shows a true difference.

    Args:
      deviation: standard deviation of the paired differences, positive.
      difference: the true mean difference, in the same unit.
      seeds: pairs, at least two.
      alpha: the test's level.
    """
    shift = math.sqrt(seeds) * abs(difference) / deviation
    critical = scipy.stats.t.ppf(1 - alpha / 2, seeds - 1)
    upper = scipy.stats.nct.sf(critical, seeds - 1, shift)
    # The tail of the wrong sign, which SciPy returns as NaN where it is far below the smallest number of consequence.
    return float(upper + np.nan_to_num(scipy.stats.nct.cdf(-critical, seeds - 1, shift)))


def equivalence_power(deviation: float, margin: float, seeds: int, alpha: float = 0.05) -> float:
    """The probability that two one-sided t tests at level `alpha` show equivalence within ± `margin`.

    The true difference is 0. This is the exact probability, by integration over the estimated deviation (Owen's Q; see
    K. F. Phillips, Power of the two one-sided tests procedure in bioequivalence, 1990).

    Args:
      deviation: standard deviation of the paired differences, positive.
      margin: in the same unit, positive.
      seeds: pairs, at least two.
      alpha: the level of each of the two tests.
    """
    scaled = math.sqrt(seeds) * margin / deviation
    critical = scipy.stats.t.ppf(1 - alpha, seeds - 1)
    # Both tests reject where |mean| < margin - critical * estimate / sqrt(n). Integrated is estimate / deviation.
    freedom, scale = seeds - 1, 1 / math.sqrt(seeds - 1)
    highest = min(scaled / critical, float(scipy.stats.chi.isf(1e-14, freedom, scale=scale)))
    nodes, weights = _nodes_and_weights()
    ratios = highest * (nodes + 1) / 2
    within = 2 * scipy.special.ndtr(scaled - critical * ratios) - 1
    return float(highest / 2 * np.sum(weights * within * scipy.stats.chi.pdf(ratios, freedom, scale=scale)))


def smallest_difference(deviation: float, seeds: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that a paired t test over `seeds` shows with probability `power`.

    Args:
      deviation: standard deviation of the paired differences; the result has the same unit.
      seeds: pairs, at least two.
      power: between `alpha` and 1.
      alpha: the level of the two-sided test.

    Raises:
      ValueError: for an argument out of range.
    """
    _check(deviation, power, alpha)
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}: it must be at least 2")
    if deviation == 0:
        return 0.0
    highest = 1.0
    while difference_power(1.0, highest, seeds, alpha) < power:
        highest *= 2
    found = scipy.optimize.brentq(
        lambda difference: difference_power(1.0, difference, seeds, alpha) - power, 0.0, highest
    )
    return deviation * float(found)  # pyright: ignore


def seeds_for_difference(deviation: float, difference: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest seeds with which a paired t test shows a true difference with probability `power`.

    Args:
      deviation: standard deviation of the paired differences.
      difference: the true mean difference, in the same unit, not 0.
      power: between `alpha` and 1.
      alpha: the level of the two-sided test.

    Returns:
      At least 2; None for more than `MOST_SEEDS`.

    Raises:
      ValueError: for an argument out of range.
    """
    _check(deviation, power, alpha)
    if difference == 0:
        raise ValueError("difference is 0: no number of seeds shows it")
    if deviation == 0:
        return 2
    return _fewest(lambda seeds: difference_power(deviation, difference, seeds, alpha) >= power)


def seeds_for_margin(deviation: float, margin: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest seeds that show equivalence within ± `margin` with probability `power`, where the arms are equal.

    Args:
      deviation: standard deviation of the paired differences.
      margin: in the same unit, positive.
      power: between `alpha` and 1.
      alpha: the level of each of the two one-sided tests.

    Returns:
      At least 2; None for more than `MOST_SEEDS`.

    Raises:
      ValueError: for an argument out of range.
    """
    _check(deviation, power, alpha)
    if not margin > 0:
        raise ValueError(f"margin is {margin}: it must be positive")
    if deviation == 0:
        return 2
    return _fewest(lambda seeds: equivalence_power(deviation, margin, seeds, alpha) >= power)


def seeds_to_decide(deviation: float, margin: float, alpha: float = 0.05) -> int | None:
    """The fewest seeds that leave nothing undecided, whatever the mean turns out to be.

    With so many, each mean either differs from 0 or is within ± `margin` at level `alpha`, provided that the deviation
    is as estimated. That takes more seeds than a power of 80 %.

    Args:
      deviation: estimated standard deviation of the paired differences.
      margin: in the same unit, positive.
      alpha: the level of the two-sided test, and of each of the two one-sided tests.

    Returns:
      At least 2; None for more than `MOST_SEEDS`.

    Raises:
      ValueError: for an argument out of range.
    """
    _check(deviation, 1 - alpha, alpha)
    if not margin > 0:
        raise ValueError(f"margin is {margin}: it must be positive")

    def decides(seeds: int) -> bool:
        quantiles = scipy.special.stdtrit(seeds - 1, 1 - alpha) + scipy.special.stdtrit(seeds - 1, 1 - alpha / 2)
        return float(quantiles) * deviation < margin * math.sqrt(seeds)

    return _fewest(decides)


def _check(deviation: float, power: float, alpha: float) -> None:
    if not (deviation >= 0 and math.isfinite(deviation)):
        raise ValueError(f"deviation is {deviation}: it must be finite and not negative")
    if not 0 < alpha < power < 1:
        raise ValueError(f"power is {power} and alpha {alpha}: they must be 0 < alpha < power < 1")


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The smallest number of seeds that is enough, where more are enough too."""
    low, high = 2, MOST_SEEDS
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
