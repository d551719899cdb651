"""The test images that a run keeps beside its predictions."""

import numpy as np
import pytest

from stepwise_jax.workdir.predictions import choose_samples, shrink_images

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("examples", "right"), [(500, 0.5), (30, 0.9), (12, 0.0), (1, 0.0), (40, 1.0)])
def test_samples_are_the_surest_errors_and_some_from_all_over(examples, right):
    probabilities = RANDOM.dirichlet(np.ones(4), examples)
    labels = np.where(RANDOM.random(examples) < right, probabilities.argmax(1), RANDOM.integers(0, 4, examples))
    rows = choose_samples(probabilities.argmax(1) == labels, probabilities.max(1)).tolist()
    listed = enumerate(zip(probabilities.tolist(), labels, strict=True))
    best = [(max(row), place) for place, (row, label) in listed if row.index(max(row)) != label]
    wrong = [place for _, place in sorted(best, reverse=True)][:12]
    assert rows[: len(wrong)] == wrong
    assert len(rows) == len(set(rows)) <= len(wrong) + 12
    assert {0, examples - 1} <= set(rows)
    # Between 12 places at even distances there are 11 gaps.
    assert all(gap <= examples / 11 + 1 for gap in np.diff(sorted(rows)))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 8, 1), (8, 8, 1)), ((96, 96, 3), (96, 96, 3)), ((192, 384, 3), (48, 96, 3)), ((400, 1, 1), (96, 1, 1))],
)
def test_no_side_of_a_sample_is_above_96_pixels(shape, expected):
    assert shrink_images(RANDOM.integers(0, 256, (2, *shape), dtype=np.uint8)).shape == (2, *expected)


def test_shrinking_averages():
    pixels = RANDOM.integers(0, 256, (1, 192, 96, 3), dtype=np.uint8)
    averaged = pixels.reshape(1, 96, 2, 48, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(shrink_images(pixels), averaged, atol=0.51)
