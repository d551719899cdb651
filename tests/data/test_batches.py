import jax
import numpy as np
import pytest

from stepwise_jax.data.batches import ResidentSplit, gather_batch, pad_rows
from stepwise_jax.data.sampler import epoch_order, split_into_calls, steps_in_call
from stepwise_jax.functional.preprocessing import Preprocessing, channel_histograms, make_preprocessing, preprocess

ROWS = np.random.default_rng(0).choice(1000, size=103, replace=False)
PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


# ---- The order of examples


@pytest.mark.parametrize("batch_size", [1, 2, 10, 103])
def test_an_epoch_feeds_every_row_at_most_once_and_drops_only_the_batch_that_is_not_full(batch_size):
    order = epoch_order(3, 2, 7, ROWS, batch_size)
    assert order.shape == (len(ROWS) // batch_size, batch_size)
    assert order.dtype == np.int32
    fed = order.ravel().tolist()
    assert len(set(fed)) == len(fed) > len(ROWS) - batch_size
    assert set(fed) <= set(ROWS.tolist())


def test_the_order_is_new_for_each_seed_stage_and_epoch_and_the_same_when_repeated():
    places = [(0, 1, 1), (1, 1, 1), (0, 2, 1), (0, 1, 2), (1, 2, 3), (3, 2, 1), (2**32 - 1, 1, 1)]
    orders = {place: epoch_order(*place, ROWS, 1).tobytes() for place in places}
    assert len(set(orders.values())) == len(places)
    assert orders == {place: epoch_order(*place, ROWS, 1).tobytes() for place in reversed(places)}


def test_the_order_does_not_depend_on_the_batch_size():
    np.testing.assert_array_equal(epoch_order(0, 1, 1, ROWS, 10).ravel(), epoch_order(0, 1, 1, ROWS, 1).ravel()[:100])


def test_every_row_comes_first_about_equally_often():
    firsts = [int(epoch_order(0, 1, epoch, np.arange(8), 8)[0, 0]) for epoch in range(4000)]
    # 500 of 4000 expected, with a standard deviation of 21.
    assert np.abs(np.bincount(firsts, minlength=8) - 500).max() < 90


def philox(seed: int, stage: int, epoch: int, count: int) -> list[int]:
    """Philox-4x64-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011)."""
    mask, words = 2**64 - 1, []
    for block in range(1, -(-count // 4) + 1):
        a, b, c, d = block, 0, epoch, stage
        keys = [seed, 0]
        for _ in range(10):
            left, right = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
            a, b, c, d = (right >> 64) ^ b ^ keys[0], right & mask, (left >> 64) ^ d ^ keys[1], left & mask
            keys = [(keys[0] + 0x9E3779B97F4A7C15) & mask, (keys[1] + 0xBB67AE8584CAA73B) & mask]
        words += [a, b, c, d]
    return words[:count]


def test_the_order_sorts_the_published_philox_generator():
    for place in ((0, 1, 1), (5, 3, 20), (2**32 - 1, 5, 100)):
        words = philox(*place, len(ROWS))
        expected = [int(row) for _, row in sorted(zip(words, ROWS, strict=True))]
        assert epoch_order(*place, ROWS, 1).ravel().tolist() == expected


def test_the_order_of_one_epoch_is_pinned():
    assert epoch_order(0, 1, 1, np.arange(10), 3).tolist() == [[8, 7, 6], [0, 4, 1], [9, 3, 5]], (
        "the order of examples has changed: runs that were stopped before would resume with another order, and no "
        "recorded result could be reproduced. Change the pinned values only together with the version and the changelog"
    )


# ---- Calls


@pytest.mark.parametrize("steps_per_call", [1, 3, 4, 11, 50])
def test_calls_resumed_at_any_step_feed_exactly_what_is_left(steps_per_call):
    order = epoch_order(0, 1, 1, ROWS, 9)
    assert len(order) == 11
    for start in range(len(order) + 1):
        blocks = list(split_into_calls(range(start, len(order)), steps_per_call))
        fed = np.concatenate([order[:start], *(order[block] for block in blocks)])
        np.testing.assert_array_equal(fed, order)
        assert all(len(block) == steps_per_call for block in blocks[:-1])


def test_calls_resumed_between_two_calls_are_the_same_calls():
    assert list(split_into_calls(range(4, 11), 4)) == list(split_into_calls(range(11), 4))[1:]


def test_steps_in_call_is_the_largest_divisor_in_the_upper_half():
    for updates in range(1, 70):
        for most in range(1, 40):
            chosen, limit = steps_in_call(updates, most), min(most, updates)
            divisors = [k for k in range(1, limit + 1) if updates % k == 0 and 2 * k > limit]
            assert chosen == (divisors[-1] if divisors else limit), (updates, most)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (1, 8), (7, 3), (9, 3), (10, 3), (5, 100)])
def test_padded_rows_keep_every_example_once(count, batch_size):
    rows, mask = pad_rows(count, batch_size)
    assert rows.shape == mask.shape == (int(np.ceil(count / batch_size)), batch_size)
    assert (rows.dtype, mask.dtype) == (np.int32, np.bool_)
    assert rows[mask].tolist() == list(range(count))
    assert rows.min() >= 0
    assert rows.max() < count


# ---- Images


def bilinear(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resampling with half-pixel centres; the triangle widens where the image shrinks."""

    def weights(old: int) -> np.ndarray:
        scale = old / size
        centres = (np.arange(size) + 0.5) * scale - 0.5
        distance = np.abs(centres[:, None] - np.arange(old)[None, :]) / max(scale, 1)
        triangle = np.maximum(1 - distance, 0)
        return triangle / triangle.sum(axis=1, keepdims=True)

    return np.einsum("yi,xj,bijc->byxc", weights(pixels.shape[1]), weights(pixels.shape[2]), pixels.astype(np.float64))


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 12), (8, 8, 21), (5, 7, 10), (12, 9, 5)])
def test_images_are_scaled_bilinearly_with_half_pixel_centres(height, width, size):
    stored = images(2, height, width, 3)
    made = np.asarray(preprocess(jax.numpy.asarray(stored), Preprocessing(size, *PLAIN)))
    assert made.shape == (2, size, size, 3)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, bilinear(stored, size) / 255, atol=2e-6)


def test_images_of_the_right_size_are_only_normalised():
    stored, mean, std = images(3, 6, 6, 3), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    made = np.asarray(preprocess(jax.numpy.asarray(stored), make_preprocessing("imagenet", 6)))
    np.testing.assert_allclose(made, (stored / 255 - mean) / std, atol=3e-6)
    plain = np.asarray(preprocess(jax.numpy.asarray(stored), make_preprocessing("none", 6)))
    np.testing.assert_allclose(plain, stored / 255, atol=1e-7)


def test_grey_images_are_seen_as_three_equal_channels():
    grey = images(2, 5, 5, 1)
    preprocessing = Preprocessing(9, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    made = np.asarray(preprocess(jax.numpy.asarray(grey), preprocessing))
    np.testing.assert_allclose(made, (bilinear(grey, 9) / 255 - preprocessing.mean) / preprocessing.std, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_by_the_data_set_is_its_mean_and_standard_deviation(channels):
    stored = images(40, 6, 5, channels)
    stored[..., 0] //= 3
    made = make_preprocessing("dataset", 32, channel_histograms(stored))
    expected = (
        np.broadcast_to((stored / 255).mean(axis=(0, 1, 2)), 3),
        np.broadcast_to((stored / 255).std(axis=(0, 1, 2)), 3),
    )
    assert made.image_size == 32
    np.testing.assert_allclose([made.mean, made.std], expected, rtol=1e-9)


def test_a_channel_without_contrast_is_normalised_to_about_nothing():
    flat = np.full((4, 3, 3, 3), 77, np.uint8)
    made = np.asarray(preprocess(jax.numpy.asarray(flat), make_preprocessing("dataset", 3, channel_histograms(flat))))
    assert np.abs(made).max() < 0.1


def test_gather_takes_rows_in_their_order_and_repeats_them():
    stored, labels = images(9, 4, 4, 3), np.arange(9, dtype=np.int32) * 11
    examples = ResidentSplit(jax.numpy.asarray(stored), jax.numpy.asarray(labels))
    rows = np.array([8, 0, 0, 3], np.int32)
    made, classes = gather_batch(examples, jax.numpy.asarray(rows), Preprocessing(4, *PLAIN))
    assert classes.tolist() == [88, 0, 0, 33]
    np.testing.assert_allclose(made, stored[rows] / 255, atol=1e-7)
