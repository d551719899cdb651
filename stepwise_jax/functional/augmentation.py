"""Random image augmentation, on the device and inside the training step. The paper uses none.

Each factory returns a pure function `key, images, labels -> images, targets`. Images are float32 [b, H, W, 3] from 0 to
1, before normalisation. Labels are classes int [b]; targets are classes, or probabilities [b, C] once `mixup` or
`cutmix` has mixed them. `compose` applies several in order.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from stepwise_jax.errors import require

Augmentation = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""`key, images float32 [b, H, W, C], labels -> images, targets`."""


def compose(*augmentations: Augmentation) -> Augmentation:
    """Apply augmentations in order, each with a key of its own."""

    def augment(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        for number, augmentation in enumerate(augmentations):
            images, labels = augmentation(jax.random.fold_in(key, number), images, labels)
        return images, labels

    return augment


def flip() -> Augmentation:
    """Flip each image horizontally with probability one half."""

    def augment(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        flipped = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
        return jnp.where(flipped, images[:, :, ::-1], images), labels

    return augment


def crop(padding: int = 4, mode: Literal["zero", "reflect"] = "zero") -> Augmentation:
    """Shift each image by up to `padding` pixels in each direction, uniformly.

    He et al., "Deep residual learning" (2016), Section 4.2, use 4 pixels on CIFAR-10.

    Args:
      padding: in pixels.
      mode: fill the border with "zero", which is black, or "reflect" the image at its edge.
    """
    require(padding >= 0, "padding", padding, "at least 0")

    def augment(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        padded = jnp.pad(images, border, mode="reflect" if mode == "reflect" else "constant")
        corners = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1)
        cut = lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])  # noqa: E731
        return jax.vmap(cut)(padded, corners), labels

    return augment


def flip_and_crop(padding: int = 4, mode: Literal["zero", "reflect"] = "zero") -> Augmentation:
    """Flip, then crop: the usual augmentation of CIFAR."""
    return compose(flip(), crop(padding, mode))


def cutout(size: int = 8) -> Augmentation:
    """Blacken a square of `size` pixels around a random pixel of each image, cut off at the edges.

    DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout" (2017).
    """
    require(size >= 1, "size", size, "at least 1")

    def augment(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        count, height, width = images.shape[:3]
        centres = jax.random.randint(key, (count, 2), 0, jnp.asarray([height, width]))
        inside = _boxes(centres - size // 2, jnp.full((count, 2), size), height, width)
        return jnp.where(inside, 0.0, images), labels

    return augment


def color_jitter(brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4) -> Augmentation:
    """Multiply brightness, contrast and saturation, in this order, by factors drawn from 1 - value to 1 + value.

    Contrast scales the difference from the image's mean grey, saturation that from each pixel's grey, with the weights
    of ITU-R BT.601. The result is cut off at 0 and 1.
    """
    for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        require(0 <= value <= 1, name, value, "from 0 to 1")

    def augment(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        ranges = jnp.asarray([brightness, contrast, saturation])[:, None]
        factors = jax.random.uniform(key, (3, len(images)), minval=-1.0, maxval=1.0) * ranges + 1
        bright, contrasted, saturated = factors[:, :, None, None, None]
        images = jnp.clip(images * bright, 0, 1)
        mean = _grey(images).mean(axis=(1, 2, 3), keepdims=True)
        images = jnp.clip(mean + contrasted * (images - mean), 0, 1)
        grey = _grey(images)
        return jnp.clip(grey + saturated * (images - grey), 0, 1), labels

    return augment


def mixup(alpha: float = 0.2, *, num_classes: int) -> Augmentation:
    """Mix each image and its target with another of the batch: x = r x_i + (1 - r) x_j, r from Beta(alpha, alpha).

    Zhang et al., "mixup: Beyond empirical risk minimization" (2018). One r a batch, as in their code.
    """
    require(0 < alpha < float("inf"), "alpha", alpha, "a positive number")

    def augment(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        ratio_key, order_key = jax.random.split(key)
        ratio = jax.random.beta(ratio_key, alpha, alpha)
        order = jax.random.permutation(order_key, len(images))
        targets = _soft(labels, num_classes)
        return ratio * images + (1 - ratio) * images[order], ratio * targets + (1 - ratio) * targets[order]

    return augment


def cutmix(alpha: float = 1.0, *, num_classes: int) -> Augmentation:
    """Paste a box of another image of the batch into each image, and mix the targets by area.

    Yun et al., "CutMix" (2019), Eq. 1 and 2: the box has the share 1 - r of the area, r from Beta(alpha, alpha), cut
    off at the edges. One box a batch, as in their code.
    """
    require(0 < alpha < float("inf"), "alpha", alpha, "a positive number")

    def augment(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        ratio_key, box_key, order_key = jax.random.split(key, 3)
        height, width = images.shape[1:3]
        side = jnp.sqrt(1 - jax.random.beta(ratio_key, alpha, alpha))
        sides = (side * jnp.asarray([height, width])).astype(jnp.int32)[None]
        centres = jax.random.randint(box_key, (1, 2), 0, jnp.asarray([height, width]))
        inside = _boxes(centres - sides // 2, sides, height, width)
        order = jax.random.permutation(order_key, len(images))
        kept, targets = 1 - inside.mean(), _soft(labels, num_classes)
        return jnp.where(inside, images[order], images), kept * targets + (1 - kept) * targets[order]

    return augment


def _boxes(corners: jax.Array, sides: jax.Array, height: int, width: int) -> jax.Array:
    """Which pixels lie in the box of each image, bool [b, H, W, 1]: corners and sides are int [b, 2], rows first."""
    rows, columns = jnp.arange(height)[None, :, None, None], jnp.arange(width)[None, None, :, None]
    (top, left), (tall, wide) = corners.T[:, :, None, None, None], sides.T[:, :, None, None, None]
    return (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)


def _grey(images: jax.Array) -> jax.Array:
    return (images * jnp.asarray([0.299, 0.587, 0.114])).sum(axis=-1, keepdims=True)


def _soft(labels: jax.Array, num_classes: int) -> jax.Array:
    return jax.nn.one_hot(labels, num_classes) if labels.ndim == 1 else labels


AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    "flip": flip,
    "crop": crop,
    "cutout": cutout,
    "color_jitter": color_jitter,
    "mixup": mixup,
    "cutmix": cutmix,
}
"""The augmentations that `data.augmentation` can name."""
