"""Paired statistics against SciPy's on the raw pairs, hand computations, and Holm's procedure word for word."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from stepwise_jax.studies.statistics.paired import Difference, holm, mean_and_deviation, paired_differences

REFERENCE = {0: 0.81, 1: 0.79, 2: 0.84, 3: 0.80, 4: 0.83}
OTHER = {0: 0.78, 1: 0.80, 2: 0.79, 3: 0.78, 4: 0.81}


def compare(reference, others, right=None, reference_right=None) -> dict[str, Difference]:
    return {each.other: each for each in paired_differences(reference, others, right or {}, reference_right or {})}


def test_interval_and_p_are_scipys_of_the_raw_pairs():
    found = compare(REFERENCE, {"b": OTHER})["b"]
    theirs = stats.ttest_rel(list(REFERENCE.values()), list(OTHER.values()))
    interval = theirs.confidence_interval(0.95)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))
    assert found.p_holm == found.p


def test_interval_and_p_by_hand():
    """Differences 3, -1, 5, 2, 2 points: mean 2.2, variance (.64 + 10.24 + 7.84 + .04 + .04)/4, t(0.975, 4) = 2.776."""
    found = compare(REFERENCE, {"b": OTHER})["b"]
    half = 2.7764451 * math.sqrt(18.8 / 4 / 5)
    assert 100 * found.mean == pytest.approx(2.2)
    assert found.interval is not None
    assert (100 * found.interval.low, 100 * found.interval.high) == pytest.approx((2.2 - half, 2.2 + half))
    assert found.by_seed == pytest.approx({0: 0.03, 1: -0.01, 2: 0.05, 3: 0.02, 4: 0.02})
    assert not found.significant


def literal_holm(p_values: list[float], level: float) -> list[bool]:
    """Holm (1979) in his words: from the smallest on, reject while p <= level / (tests that are left)."""
    rejected = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def closed_testing(p_values: list[float], level: float) -> list[bool]:
    """A hypothesis is rejected if Bonferroni's test rejects every intersection that it is part of."""
    every = [
        subset for size in range(1, len(p_values) + 1) for subset in itertools.combinations(range(len(p_values)), size)
    ]
    rejects = {subset: min(p_values[i] for i in subset) <= level / len(subset) for subset in every}
    return [all(rejects[subset] for subset in every if place in subset) for place in range(len(p_values))]


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_the_procedure_and_closed_testing_reject(seed):
    p_values = (np.random.default_rng(seed).random(6) ** 4).tolist()
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.1, 0.3):
        ours = [p is not None and p <= level for p in corrected]
        assert ours == literal_holm(p_values, level) == closed_testing(p_values, level)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None, 0.02, None, 0.01]) == [None, pytest.approx(0.02), None, pytest.approx(0.02)]


def test_the_family_is_all_that_the_reference_is_compared_with():
    shifted = {seed: score + 0.001 * seed**2 for seed, score in OTHER.items()}
    alone, both = compare(REFERENCE, {"b": OTHER}), compare(REFERENCE, {"b": OTHER, "c": shifted})
    assert alone["b"].p == both["b"].p
    assert holm([both["b"].p, both["c"].p]) == [both["b"].p_holm, both["c"].p_holm]


def test_seeds_of_one_side_alone_are_left_out():
    more = {**OTHER, 7: 0.1}
    fewer = {seed: REFERENCE[seed] for seed in (0, 1, 2, 3)} | {9: 0.99}
    found = compare(fewer, {"b": more})["b"]
    assert set(found.by_seed) == {0, 1, 2, 3}
    assert found.mean == pytest.approx(np.mean([0.03, -0.01, 0.05, 0.02]))
    assert compare(fewer, {"b": {5: 0.3}, "c": {}}) == {}


def test_one_seed_has_a_mean_and_nothing_else():
    found = compare({3: 0.9}, {"b": {3: 0.8}})["b"]
    assert found.mean == pytest.approx(0.1)
    assert (found.interval, found.p, found.p_holm, found.significant) == (None, None, None, False)
    assert mean_and_deviation([0.5]) == (0.5, None)
    assert mean_and_deviation([0.5, 0.7]) == (pytest.approx(0.6), pytest.approx(math.sqrt(0.02)))


def test_identical_scores_are_no_difference():
    found = compare(REFERENCE, {"b": dict(REFERENCE)})["b"]
    assert (found.mean, found.p, found.significant, found.interval) == (0.0, 1.0, False, None)


def test_the_same_difference_in_all_seeds_leaves_nothing_to_test():
    """Two seeds that both differ by a point have no spread: no certainty follows from that."""
    found = compare({0: 0.5, 1: 0.6, 2: 0.9}, {"b": {0: 0.49, 1: 0.59, 2: 0.89}})["b"]
    assert found.mean == pytest.approx(0.01)
    assert (found.interval, found.p, found.p_holm, found.significant) == (None, None, None, False)


def test_the_interval_over_images_is_that_of_a_mean_of_many():
    random = np.random.default_rng(1)
    ours, theirs = random.random(10_000) < 0.7, random.random(10_000) < 0.68
    values = ours.astype(float) - theirs
    found = compare({0: ours.mean()}, {"b": {0: theirs.mean()}}, {"b": {0: theirs}}, {0: ours})["b"]
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert found.image_interval is not None
    assert found.image_interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.image_interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    again = compare({0: ours.mean()}, {"b": {0: theirs.mean()}}, {"b": {0: theirs}}, {0: ours})["b"]
    assert again == found


def test_the_interval_over_images_averages_over_seeds_first():
    random = np.random.default_rng(2)
    images = random.random((2, 3, 400)) < 0.5
    ours, theirs = (dict(enumerate(rights)) for rights in images)
    scores = [{seed: rights.mean() for seed, rights in side.items()} for side in (ours, theirs)]
    found = compare(scores[0], {"b": scores[1]}, {"b": theirs}, ours)["b"].image_interval
    assert found is not None
    per_image = np.mean([ours[seed].astype(float) - theirs[seed] for seed in range(3)], axis=0)
    error = per_image.std(ddof=1) / 20
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert found.low < found.high


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {0: np.array([True, False])}),
        ({0: np.array([True])}, {0: np.array([False])}),
        ({0: np.array([True, False])}, {0: np.array([True, False])}),
        ({0: np.array([True, False])}, {0: np.array([True, False, True])}),
    ],
)
def test_no_interval_over_images_where_they_say_nothing(ours, theirs):
    assert compare({0: 0.9}, {"b": {0: 0.8}}, {"b": theirs}, ours)["b"].image_interval is None


def test_differences_that_are_shown():
    better = {seed: score - 0.05 + 0.002 * (-1) ** seed for seed, score in REFERENCE.items()}
    found = compare(REFERENCE, {"b": better})["b"]
    assert found.significant
    assert found.interval is not None
    assert found.interval.low > 0
