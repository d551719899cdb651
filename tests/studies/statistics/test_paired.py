"""Paired comparisons against SciPy's on the raw pairs and hand computations, and their four verdicts."""

import math

import numpy as np
import pytest
from scipy import stats

from stepwise_jax.studies.statistics.multiplicity import holm
from stepwise_jax.studies.statistics.paired import Difference, paired_differences
from stepwise_jax.studies.statistics.student import equivalence_p, t_interval

REFERENCE = {0: 0.81, 1: 0.79, 2: 0.84, 3: 0.80, 4: 0.83}
OTHER = {0: 0.78, 1: 0.80, 2: 0.79, 3: 0.78, 4: 0.81}


def compare(reference, others, right=None, reference_right=None, **settings) -> dict[str, Difference]:
    found = paired_differences(reference, others, right or {}, reference_right or {}, **settings)
    return {each.other: each for each in found}


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
    assert found.verdict == "not decided"


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
    assert (found.interval, found.p, found.p_holm, found.verdict) == (None, None, None, "not decided")


def test_identical_scores_are_no_difference():
    found = compare(REFERENCE, {"b": dict(REFERENCE)})["b"]
    assert (found.mean, found.p, found.verdict, found.interval) == (0.0, 1.0, "not decided", None)


def test_the_same_difference_in_all_seeds_leaves_nothing_to_test():
    """Two seeds that both differ by a point have no spread: no certainty follows from that."""
    found = compare({0: 0.5, 1: 0.6, 2: 0.9}, {"b": {0: 0.49, 1: 0.59, 2: 0.89}})["b"]
    assert found.mean == pytest.approx(0.01)
    assert (found.interval, found.p, found.p_holm, found.verdict) == (None, None, None, "not decided")


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
    assert found.verdict == "better"
    assert found.interval is not None
    assert found.interval.low > 0


def noisy(shift: float, spread: float = 0.001) -> dict[int, float]:
    """An arm that is behind the reference by `shift` and varies by about `spread`."""
    return {seed: score - shift + spread * (-1) ** seed for seed, score in REFERENCE.items()}


def test_each_arm_has_one_of_four_verdicts():
    arms = {"ahead": noisy(0.03), "behind": noisy(-0.03), "level": noisy(0.004), "open": noisy(0.01, 0.01)}
    assert {name: each.verdict for name, each in compare(REFERENCE, arms).items()} == {
        "ahead": "better",
        "behind": "worse",
        "level": "equivalent",
        "open": "not decided",
    }


def test_a_certain_difference_within_the_margin_is_equivalent_and_a_smaller_margin_makes_it_better():
    found = compare(REFERENCE, {"b": noisy(0.004)})["b"]
    assert found.p_holm is not None
    assert found.p_holm < 0.05
    assert found.verdict == "equivalent"
    assert compare(REFERENCE, {"b": noisy(0.004)}, margin=0.003)["b"].verdict == "better"


def test_both_questions_are_corrected_for_all_arms_and_looks():
    arms = {"a": noisy(0.003, 0.004), "b": noisy(0.006, 0.003), "c": noisy(0.0, 0.005)}
    one, three = compare(REFERENCE, arms), compare(REFERENCE, arms, looks=3)
    raw = [equivalence_p(list(each.by_seed.values()), 0.01) for each in one.values()]
    assert [each.p_equivalent for each in one.values()] == pytest.approx(holm(raw))
    assert [each.p_equivalent for each in three.values()] == pytest.approx(holm(raw, looks=3))
    assert [each.p_holm for each in three.values()] == holm([each.p for each in one.values()], looks=3)
    assert [each.interval for each in three.values()] == [
        t_interval(list(each.by_seed.values()), looks=3) for each in one.values()
    ]


def test_so_many_seeds_would_decide_whatever_the_mean():
    """With the deviation as estimated, every mean is then either shown to differ or shown to be within the margin."""
    found = compare(REFERENCE, {"b": OTHER}, margin=0.01)["b"]
    total = found.seeds_to_decide
    assert total is not None
    deviation = np.std(list(found.by_seed.values()), ddof=1)
    for count, decided in ((total, True), (total - 1, False)):
        error = deviation / math.sqrt(count)
        shown = stats.t.ppf(1 - 0.05 / 2 / 2, count - 1) * error
        within = 0.01 - stats.t.ppf(1 - 0.05 / 2, count - 1) * error
        assert (within > shown) == decided
    assert compare(REFERENCE, {"b": OTHER}, margin=0.0001)["b"].seeds_to_decide is None
    more = {name: OTHER for name in "bcd"}
    assert compare(REFERENCE, more)["b"].seeds_to_decide > total  # pyright: ignore
