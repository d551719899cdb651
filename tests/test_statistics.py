"""Paired statistics beside scipy's own paired test, the definition of Holm's correction, and a closed form."""

import itertools

import numpy as np
import pytest
from scipy import stats

from stepwise_jax.statistics import Interval, differences, holm, mean_and_deviation

RANDOM = np.random.default_rng(5)
REFERENCE = {seed: float(value) for seed, value in enumerate(0.5 + 0.01 * RANDOM.standard_normal(6))}
OTHER = {seed: value - 0.004 + 0.005 * float(RANDOM.standard_normal()) for seed, value in REFERENCE.items()}


def only(reference, other, right=None, reference_right=None):
    (found,) = differences(reference, {"other": other}, {"other": right or {}}, reference_right or {})
    return found


def test_the_interval_and_p_are_those_of_a_paired_test():
    wanted = stats.ttest_rel(list(REFERENCE.values()), list(OTHER.values()))
    found = only(REFERENCE, OTHER)
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.p_holm == found.p
    interval = wanted.confidence_interval(0.95)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))


def test_a_pair_by_hand():
    found = only({0: 0.52, 1: 0.54}, {0: 0.50, 1: 0.50})
    # Differences of 2 and 4 points: mean 3, standard error 1, Student's t with one degree of freedom is 12.706.
    assert found.mean == pytest.approx(0.03)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((-0.09706, 0.15706), abs=1e-5)
    assert not found.shown


def test_a_seed_that_one_of_the_two_lacks_is_left_out():
    found = only({0: 0.5, 1: 0.6, 2: 0.7}, {1: 0.5, 2: 0.5, 3: 0.1})
    assert found.by_seed == {1: pytest.approx(0.1), 2: pytest.approx(0.2)}
    assert differences({0: 0.5}, {"other": {1: 0.5}}, {}, {}) == ()


def test_one_seed_has_no_interval_and_shows_nothing():
    found = only({0: 0.9}, {0: 0.1})
    assert (found.interval, found.p, found.p_holm, found.shown) == (None, None, None, False)


def test_runs_that_are_the_same_show_nothing():
    found = only({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6})
    assert (found.interval, found.p, found.shown) == (Interval(0, 0), 1.0, False)
    constant = only({0: 0.50, 1: 0.75}, {0: 0.25, 1: 0.50})
    assert (constant.p, constant.shown) == (None, False)


@pytest.mark.parametrize("p_values", [[0.01, 0.04, 0.03], [0.2], [0.001, 0.6, 0.02, 0.02], [0.05, 0.05]])
def test_holm_is_the_closed_test_with_bonferroni(p_values):
    # A hypothesis' corrected p is the largest, over all families that hold it, of the family's Bonferroni p.
    places = range(len(p_values))
    families = [set(f) for size in range(1, len(p_values) + 1) for f in itertools.combinations(places, size)]
    for place, corrected in enumerate(holm(p_values)):
        wanted = max(min(1.0, len(f) * min(p_values[i] for i in f)) for f in families if place in f)
        assert corrected == pytest.approx(wanted)


def test_tests_that_could_not_be_made_do_not_count():
    assert holm([None, 0.02, None, 0.03]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)]


def test_the_bootstrap_over_images_is_near_its_normal_approximation():
    images = 4000
    right = {seed: RANDOM.random(images) < 0.7 for seed in range(3)}
    other = {seed: answers ^ (RANDOM.random(images) < 0.2) for seed, answers in right.items()}
    found = only(dict.fromkeys(range(3), 0.7), dict.fromkeys(range(3), 0.6), other, right)
    again = only(dict.fromkeys(range(3), 0.7), dict.fromkeys(range(3), 0.6), other, right)
    per_image = np.mean([right[seed].astype(float) - other[seed] for seed in range(3)], axis=0)
    half = 1.96 * per_image.std(ddof=1) / np.sqrt(images)
    assert found.image_interval is not None
    assert found.image_interval == again.image_interval
    assert found.image_interval.low == pytest.approx(per_image.mean() - half, abs=0.1 * half)
    assert found.image_interval.high == pytest.approx(per_image.mean() + half, abs=0.1 * half)


def test_without_answers_there_is_no_interval_over_images():
    assert only(REFERENCE, OTHER).image_interval is None
    same = {0: np.ones(5, bool)}
    assert only({0: 1.0}, {0: 1.0}, same, same).image_interval is None
    assert only({0: 1.0}, {0: 1.0}, {0: np.ones(4, bool)}, same).image_interval is None


def test_mean_and_deviation():
    assert mean_and_deviation([1.0, 2.0, 4.0]) == (pytest.approx(7 / 3), pytest.approx(1.5275252))
    assert mean_and_deviation([0.3]) == (0.3, None)
