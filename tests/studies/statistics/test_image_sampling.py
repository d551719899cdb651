"""The interval over seeds and images together: its mean squares, and its coverage in simulation."""

import numpy as np
import pytest

from stepwise_jax.studies.statistics.images import crossed_interval, image_interval, mean_squares
from stepwise_jax.studies.statistics.student import Interval, t_interval


def test_mean_squares_by_hand():
    """Rows 1 2 3 / 3 4 8: grand mean 3.5, row means 2 and 5, column means 2, 3 and 5.5."""
    of_rows, of_columns, rest = mean_squares(np.array([[1.0, 2, 3], [3, 4, 8]]))
    assert of_rows == pytest.approx(3 * (1.5**2 + 1.5**2))
    assert of_columns == pytest.approx(2 * (1.5**2 + 0.5**2 + 2**2) / 2)
    assert rest == pytest.approx((0.5**2 + 0.5**2 + 1**2) * 2 / 2)


def crossed(random: np.random.Generator, seeds: int, images: int, deviations: tuple[float, float, float]) -> np.ndarray:
    of_seeds, of_images, rest = deviations
    values = of_seeds * random.standard_normal((seeds, 1)) + of_images * random.standard_normal((1, images))
    return values + rest * random.standard_normal((seeds, images))


def coverage(intervals: list[Interval | None]) -> float:
    return float(np.mean([each is not None and each.low <= 0 <= each.high for each in intervals]))


@pytest.mark.parametrize("deviations", [(0.02, 0.5, 0.3), (0.1, 0.5, 0.3), (0.1, 0.1, 0.5)])
def test_the_interval_covers_the_mean_over_other_seeds_and_other_images(deviations):
    random = np.random.default_rng(0)
    draws = [crossed(random, 5, 100, deviations) for _ in range(3000)]
    assert 0.94 <= coverage([crossed_interval(draw) for draw in draws]) <= 0.985
    if deviations[1] > deviations[0]:
        assert coverage([t_interval(draw.mean(1).tolist()) for draw in draws]) < 0.93


def test_differences_of_correct_and_wrong_answers_are_covered():
    """Images of very different difficulty; both arms are as good, and each training shifts its arm a little."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(1500):
        difficulty = random.normal(0.6, 1.0, 200)
        taste, training = random.normal(0, 0.7, (2, 1, 200)), random.normal(0, 0.1, (2, 5, 1))
        correct = random.normal(0, 0.5, (2, 5, 200)) < difficulty + taste + training
        found.append(crossed_interval(correct[0].astype(float) - correct[1]))
    assert 0.935 <= coverage(found) <= 0.985


def test_more_looks_widen_it_and_too_little_data_has_none():
    draw = crossed(np.random.default_rng(1), 4, 50, (0.1, 0.5, 0.3))
    once, thrice = crossed_interval(draw), crossed_interval(draw, looks=3)
    assert once is not None
    assert thrice is not None
    assert thrice.low < once.low < draw.mean() < once.high < thrice.high
    assert crossed_interval(draw[:1]) is None
    assert crossed_interval(draw[:, :1]) is None
    assert crossed_interval(np.tile(draw[:1], (4, 1))) is None
    assert image_interval(draw[:, :1]) is None
