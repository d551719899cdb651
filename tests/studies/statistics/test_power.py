"""Power against statsmodels, against numerical integration, and against simulated seeds."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from stepwise_jax.studies.statistics.power import (
    MOST_SEEDS,
    difference_power,
    equivalence_power,
    seeds_for_difference,
    seeds_for_margin,
    smallest_difference,
)


@pytest.mark.parametrize(
    ("seeds", "difference"),
    [(2, 11.549888), (3, 3.2640436), (5, 1.6819971), (10, 0.9960019), (20, 0.6604416), (100, 0.2829117)],
)
def test_the_smallest_difference_is_that_of_statsmodels(seeds, difference):
    """`TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)` of statsmodels 0.15.0."""
    assert smallest_difference(1.0, seeds) == pytest.approx(difference, rel=1e-5)
    assert smallest_difference(0.013, seeds) == pytest.approx(0.013 * difference, rel=1e-5)


@pytest.mark.parametrize(
    ("difference", "usual", "stricter"),
    [(0.1, 786.8, 1491.3), (0.2, 198.2, 375.3), (0.5, 33.4, 62.9), (0.8, 14.3, 26.6), (1, 9.9, 18.3), (2, 4.2, 7.2)],
)
def test_seeds_for_a_difference_are_those_of_statsmodels(difference, usual, stricter):
    """The same function for `effect_size`, which returns fractions of a seed."""
    assert seeds_for_difference(1.0, -difference) == math.ceil(usual)
    expected = math.ceil(stricter) if stricter <= MOST_SEEDS else None
    assert seeds_for_difference(1.0, difference, power=0.9, alpha=0.01) == expected


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 100])
@pytest.mark.parametrize("margin", [0.3, 1.0, 4.0])
def test_the_power_of_equivalence_is_the_integral_over_the_estimated_deviation(seeds, margin):
    scaled, critical = math.sqrt(seeds) * margin, stats.t.ppf(0.95, seeds - 1)

    def density(variance: float) -> float:
        spread = critical * math.sqrt(variance / (seeds - 1))
        within = stats.norm.cdf(scaled - spread) - stats.norm.cdf(spread - scaled)
        return float(within * stats.chi2.pdf(variance, seeds - 1))

    highest = (seeds - 1) * (scaled / critical) ** 2
    expected, _ = integrate.quad(density, 0, highest, limit=200, points=[min(highest, 2.0 * seeds)])
    assert equivalence_power(1.0, margin, seeds) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("deviation", "margin"), [(0.01, 0.01), (0.02, 0.01), (0.004, 0.01)])
def test_the_seeds_for_a_margin_reach_the_power_in_simulation_and_one_fewer_does_not(deviation, margin):
    seeds = seeds_for_margin(deviation, margin)
    assert seeds is not None
    random = np.random.default_rng(0)
    for count, reached in ((seeds, True), (seeds - 1, False)):
        scores = deviation * random.standard_normal((200_000, count))
        half = stats.t.ppf(0.95, count - 1) * scores.std(1, ddof=1) / math.sqrt(count)
        share = np.mean((scores.mean(1) - half > -margin) & (scores.mean(1) + half < margin))
        assert (share >= 0.8) == reached
        assert equivalence_power(deviation, margin, count) == pytest.approx(share, abs=0.004)


def test_the_power_of_a_difference_in_simulation_counts_both_tails():
    scores = np.random.default_rng(0).normal(0.1, 1.0, (200_000, 3))
    share = np.mean(stats.ttest_1samp(scores, 0.0, axis=1).pvalue < 0.05)  # pyright: ignore
    assert difference_power(1.0, 0.1, 3) == pytest.approx(share, abs=0.002)


def test_no_spread_and_too_much_of_it():
    assert smallest_difference(0.0, 5) == 0
    assert seeds_for_difference(0.0, 0.01) == seeds_for_margin(0.0, 0.01) == 2
    assert seeds_for_difference(1.0, 0.01) is None
    assert seeds_for_margin(1.0, 0.01) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: smallest_difference(1.0, 1),
        lambda: smallest_difference(-1.0, 5),
        lambda: smallest_difference(math.nan, 5),
        lambda: smallest_difference(1.0, 5, power=0.04),
        lambda: seeds_for_difference(1.0, 0.0),
        lambda: seeds_for_margin(1.0, 0.0),
        lambda: seeds_for_margin(1.0, 1.0, alpha=0.0),
    ],
)
def test_values_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match=r"it must be|they must be|no number"):
        call()
