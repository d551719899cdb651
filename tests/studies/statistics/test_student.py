"""Student's t and two one-sided tests against SciPy and statsmodels, with Darwin's plants as the example."""

import math

import numpy as np
import pytest
from scipy import stats

from stepwise_jax.studies.statistics.student import (
    difference_p,
    equivalence_p,
    mean_and_deviation,
    spread,
    t_interval,
    t_quantile,
)

DARWIN = [each / 8 for each in (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)]
"""Heights of crossed minus self-fertilised maize, inches (R. A. Fisher, The Design of Experiments, 1935, table 3)."""


def test_fishers_example():
    """He finds t = 2.148, and 5 % significance with 14 degrees of freedom at 2.145."""
    assert difference_p(DARWIN) == pytest.approx(0.0497, abs=5e-5)
    assert t_quantile(0.975, 15) == pytest.approx(2.145, abs=5e-4)
    interval = t_interval(DARWIN)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((0.00390, 5.22943), abs=1e-5)


@pytest.mark.parametrize(("margin", "p"), [(3, 0.3788252510), (5, 0.0353317115), (8, 0.00029149367)])
def test_equivalence_is_that_of_statsmodels(margin, p):
    """`DescrStatsW(values).ttost_mean(-margin, margin)` of statsmodels 0.15.0; pingouin 0.7.0 has the same for 8."""
    assert equivalence_p(DARWIN, margin) == pytest.approx(p)
    assert equivalence_p([-each for each in DARWIN], margin) == pytest.approx(p)


@pytest.mark.parametrize("seed", range(4))
def test_p_values_and_intervals_are_scipys(seed):
    values = np.random.default_rng(seed).normal(0.3, 1.0, 2 + 3 * seed).tolist()
    theirs = stats.ttest_1samp(values, 0.0)
    assert difference_p(values) == pytest.approx(theirs.pvalue)  # pyright: ignore
    sides = [stats.ttest_1samp(values, center, alternative=side) for center, side in ((-1, "greater"), (1, "less"))]
    assert equivalence_p(values, 1.0) == pytest.approx(max(side.pvalue for side in sides))  # pyright: ignore
    for looks in (1, 4):
        expected = theirs.confidence_interval(1 - 0.05 / looks)  # pyright: ignore
        found = t_interval(values, looks)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_equivalence_at_5_percent_is_the_90_percent_interval_within_the_margin():
    values = [0.1, 0.5, -0.2, 0.3]
    half = t_quantile(0.95, 4) * np.std(values, ddof=1) / 2
    edge = float(np.mean(values) + half)
    assert equivalence_p(values, edge) == pytest.approx(0.05)
    assert equivalence_p(values, 1.001 * edge) < 0.05 < equivalence_p(values, 0.999 * edge)  # pyright: ignore


@pytest.mark.parametrize("values", [[0.3], [0.2, 0.2, 0.2], [0.1 + 0.2, 0.3, 0.3]])
def test_without_a_spread_nothing_is_claimed(values):
    assert (spread(values), t_interval(values), difference_p(values), equivalence_p(values, 1.0)) == (None,) * 4


def test_equal_scores_are_no_difference_and_no_proof_of_equivalence():
    assert (difference_p([0.0, 0.0]), equivalence_p([0.0, 0.0], 1.0)) == (1.0, None)
    assert difference_p([0.0]) is None


def test_the_mean_and_deviation_of_few_values():
    assert mean_and_deviation([0.5]) == (0.5, None)
    assert mean_and_deviation([0.5, 0.7]) == (pytest.approx(0.6), pytest.approx(math.sqrt(0.02)))
    interval = t_interval([-1.0, 1.0])
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((-12.7062, 12.7062), abs=1e-4)
