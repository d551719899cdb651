"""Components of variance against a table of chi-square, and their coverage in simulation."""

import numpy as np
import pytest

from stepwise_jax.studies.statistics.components import variance_components


def test_a_component_by_hand():
    """Chi-square with 9 degrees of freedom is below 2.70039 and above 19.0228 with 2.5 % each."""
    scores = [0.5 + 0.01 * (-1) ** run for run in range(10)]
    (found,) = variance_components({"init": scores})
    assert found.variance == pytest.approx(1e-3 / 9)
    assert found.deviation == pytest.approx(0.0105409, rel=1e-5)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((1e-3 / 19.0228, 1e-3 / 2.70039), rel=1e-5)
    assert (found.stream, found.runs, found.share) == ("init", 10, 1.0)


def test_shares_are_of_the_sum():
    scores = {"init": [0.1, 0.3], "order": [0.1, 0.5], "subset": [0.2, 0.2]}
    found = variance_components(scores)
    assert [each.share for each in found] == pytest.approx([0.2, 0.8, 0.0])
    assert found[2].interval is None


def test_one_run_has_no_variance_and_leaves_the_shares_unknown():
    one, two = variance_components({"init": [0.1], "order": [0.1, 0.2]})
    assert (one.variance, one.deviation, one.interval, one.share, two.share) == (None,) * 5
    assert two.variance == pytest.approx(0.005)


def test_the_interval_covers_the_variance():
    draws = np.random.default_rng(0).normal(0.7, 0.02, (4000, 5))
    found = [variance_components({"init": draw.tolist()})[0].interval for draw in draws]
    covered = np.mean([each is not None and each.low <= 0.02**2 <= each.high for each in found])
    assert covered == pytest.approx(0.95, abs=0.012)
