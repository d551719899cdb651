"""Numbers as people read them."""

import pytest
from scipy import stats

from stepwise_jax import formatting


def test_numbers_as_people_read_them():
    assert [formatting.format_percent(value) for value in (0.97222, 1.0, 0, None)] == [
        "97.22 %",
        "100.00 %",
        "0.00 %",
        "–",
    ]
    assert [formatting.format_duration(value) for value in (0.4, 59.6, 3661, 360000)] == [
        "0:00:00",
        "0:01:00",
        "1:01:01",
        "100:00:00",
    ]


def test_scores_have_the_sampling_error_of_the_test_set():
    """By hand: 1.96 sqrt(0.65 * 0.35 / 40) = 0.1478."""
    scores = {"top1": 0.65, "top5": 0.9, "loss": 1.0}
    assert formatting.describe_scores(scores, 40) == "top-1 65.00 % ± 14.78 on 40 images, top-5 90.00 %"
    assert formatting.describe_scores(scores) == "top-1 65.00 %, top-5 90.00 %"
    assert formatting.describe_scores({}, 40) == ""
    assert formatting.format_sampling_error(0.5, 10_000) == " ± 0.98 on 10,000 images"


@pytest.mark.parametrize(("correct", "images"), [(40, 40), (0, 40), (36, 40), (4, 9), (1, 1), (9998, 10_000)])
def test_an_accuracy_near_0_or_1_has_wilsons_interval(correct, images):
    theirs = stats.binomtest(correct, images).proportion_ci(method="wilson")
    count = "1 image" if images == 1 else f"{images:,} images"
    expected = f" ({100 * theirs.low:.2f} to {100 * theirs.high:.2f}) on {count}"
    assert formatting.format_sampling_error(correct / images, images) == expected


def test_five_of_a_kind_are_enough_for_the_normal_approximation():
    assert formatting.format_sampling_error(35 / 40, 40) == " ± 10.25 on 40 images"
    assert "to" in formatting.format_sampling_error(36 / 40, 40)
