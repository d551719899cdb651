"""Every image that comes out is one of those that may, about as often as it should, and the key decides which."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepwise_jax.functional.augmentation import random_crop, random_flip

IMAGE = np.arange(1, 4 * 5 * 2 + 1, dtype=np.uint8).reshape(4, 5, 2)
MANY = jnp.broadcast_to(IMAGE, (2000, *IMAGE.shape))


def counted(images) -> collections.Counter:
    return collections.Counter(np.asarray(image).tobytes() for image in images)


def test_half_of_the_images_are_mirrored():
    made = jax.jit(random_flip)(jax.random.key(0), MANY)
    assert made.dtype == np.uint8
    counts = counted(made)
    assert set(counts) == {IMAGE.tobytes(), IMAGE[:, ::-1].tobytes()}
    assert 900 < counts[IMAGE.tobytes()] < 1100


def test_crops_are_all_places_of_the_padded_image_equally_often():
    made = jax.jit(random_crop, static_argnums=2)(jax.random.key(1), MANY, 1)
    padded = np.pad(IMAGE, ((1, 1), (1, 1), (0, 0)))
    places = {padded[row : row + 4, column : column + 5].tobytes() for row in range(3) for column in range(3)}
    counts = counted(made)
    assert set(counts) == places
    # 2000 draws of nine places: 222 each, give or take five standard deviations of 14.
    assert all(150 < count < 295 for count in counts.values())


@pytest.mark.parametrize("change", [random_flip, lambda key, images: random_crop(key, images, 2)])
def test_the_key_alone_decides(change):
    same = [np.asarray(change(jax.random.key(seed), MANY)).tobytes() for seed in (3, 3, 4)]
    assert same[0] == same[1] != same[2]


def test_no_padding_changes_nothing():
    np.testing.assert_array_equal(random_crop(jax.random.key(0), MANY[:3], 0), MANY[:3])
