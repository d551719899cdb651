"""Every image that comes out is one of those that may, about as often as it should, and the key decides which."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepwise_jax.functional import augmentation

IMAGE = (np.arange(1, 4 * 5 * 3 + 1, dtype=np.float32) / 100).reshape(4, 5, 3)
MANY = jnp.broadcast_to(IMAGE, (2000, *IMAGE.shape))
LABELS = jnp.arange(2000) % 3


def counted(images) -> collections.Counter:
    return collections.Counter(np.asarray(image).tobytes() for image in images)


def apply(change, seed=0, images=MANY):
    return jax.jit(change)(jax.random.key(seed), images, LABELS[: len(images)])


def test_half_of_the_images_are_mirrored():
    made, labels = apply(augmentation.flip())
    counts = counted(made)
    assert set(counts) == {IMAGE.tobytes(), IMAGE[:, ::-1].tobytes()}
    assert 900 < counts[IMAGE.tobytes()] < 1100
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zero", "constant"), ("reflect", "reflect")])
def test_crops_are_all_places_of_the_padded_image_equally_often(mode, numpy_mode):
    made, _ = apply(augmentation.crop(1, mode))
    padded = np.pad(IMAGE, ((1, 1), (1, 1), (0, 0)), mode=numpy_mode)
    places = {padded[row : row + 4, column : column + 5].tobytes() for row in range(3) for column in range(3)}
    counts = counted(made)
    assert set(counts) == places
    # 2000 draws of nine places: 222 each, give or take five standard deviations of 14.
    assert all(150 < count < 295 for count in counts.values())


def test_no_padding_changes_nothing():
    np.testing.assert_array_equal(apply(augmentation.crop(0))[0], MANY)


def test_cutout_blackens_one_square_around_every_pixel_equally_often():
    made = np.asarray(apply(augmentation.cutout(2))[0])
    counts = counted((made == 0).all(axis=-1))
    expected = set()
    for row in range(4):
        for column in range(5):
            mask = np.zeros((4, 5), bool)
            mask[max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] = True
            expected.add(mask.tobytes())
    assert set(counts) == expected
    assert np.isin(made, [0, *IMAGE.ravel()]).all()
    assert all(40 < count < 160 for count in counts.values())


def test_brightness_alone_scales_each_image_by_its_own_factor():
    made = np.asarray(apply(augmentation.color_jitter(0.4, 0.0, 0.0))[0])
    factors = made / IMAGE
    assert np.ptp(factors, axis=(1, 2, 3)).max() < 1e-5
    assert 0.6 <= factors.min() < 0.63
    assert 1.37 < factors.max() <= 1.4


def test_contrast_and_saturation_keep_what_they_turn_about():
    grey = np.asarray([0.299, 0.587, 0.114], np.float32)
    image = 0.3 + IMAGE / 2  # Far enough from 0 and 1 that nothing is cut off.
    images = jnp.broadcast_to(image, MANY.shape)
    contrasted = np.asarray(apply(augmentation.color_jitter(0.0, 0.4, 0.0), 0, images)[0])
    np.testing.assert_allclose((contrasted @ grey).mean(axis=(1, 2)), (image @ grey).mean(), rtol=1e-5)
    saturated = np.asarray(apply(augmentation.color_jitter(0.0, 0.0, 0.4), 0, images)[0])
    np.testing.assert_allclose(saturated @ grey, np.broadcast_to(image @ grey, (2000, 4, 5)), rtol=1e-5)
    assert np.ptp(contrasted, axis=0).max() > 0.01
    assert np.ptp(saturated, axis=0).max() > 0.001


def pairs(count: int = 400) -> jax.Array:
    """Images of one value each, from 0 to 1."""
    return jnp.broadcast_to(jnp.linspace(0, 1, count)[:, None, None, None], (count, 6, 6, 3))


@pytest.mark.parametrize("seed", range(5))
def test_mixup_mixes_images_and_targets_with_one_ratio(seed):
    images = pairs()
    key = jax.random.key(seed)
    labels = jnp.arange(400)
    made, targets = augmentation.mixup(0.8, num_classes=400)(key, images, labels)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
    # Each image's class is its value, so the targets' mean value is the mixed image's.
    np.testing.assert_allclose(targets @ np.linspace(0, 1, 400), made[:, 0, 0, 0], atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_mixes_the_targets_by_the_area_of_the_box(seed):
    made, targets = augmentation.cutmix(1.0, num_classes=400)(jax.random.key(seed), pairs(), jnp.arange(400))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(targets @ np.linspace(0, 1, 400), made[..., 0].mean(axis=(1, 2)), atol=1e-5)


def test_mixed_targets_can_be_mixed_again():
    both = augmentation.compose(
        augmentation.mixup(1.0, num_classes=3), augmentation.cutmix(1.0, num_classes=3), augmentation.flip()
    )
    _, targets = apply(both)
    assert targets.shape == (2000, 3)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)


def test_composed_augmentations_are_applied_in_order_with_keys_of_their_own():
    composed = augmentation.flip_and_crop(1)
    key = jax.random.key(5)
    flipped, labels = augmentation.flip()(jax.random.fold_in(key, 0), MANY, LABELS)
    expected, _ = augmentation.crop(1)(jax.random.fold_in(key, 1), flipped, labels)
    np.testing.assert_array_equal(composed(key, MANY, LABELS)[0], expected)


ALL = {
    name: factory(num_classes=3) if name in ("mixup", "cutmix") else factory()
    for name, factory in augmentation.AUGMENTATIONS.items()
}


@pytest.mark.parametrize("name", ALL)
def test_the_key_alone_decides(name):
    images = jax.random.uniform(jax.random.key(9), (64, 16, 16, 3))
    same = [np.asarray(apply(ALL[name], seed, images)[0]).tobytes() for seed in (3, 3, 4)]
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize("name", ALL)
def test_shape_dtype_and_range_are_kept(name):
    images = jax.random.uniform(jax.random.key(9), (64, 16, 12, 3))
    made, _ = apply(ALL[name], 1, images)
    assert (made.shape, made.dtype) == (images.shape, images.dtype)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1 + 1e-6
