"""From stored images to network input: scaling and normalisation."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Statistics of the 1.28 million ImageNet training images, scaled to 0..1; torchvision and timm use the same values.
IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocessing(NamedTuple):
    """Parameters of the preprocessing: plain numbers, so that they can be recorded and exported."""

    image_size: int
    mean: tuple[float, ...]
    """Per channel, of images scaled to 0..1."""
    std: tuple[float, ...]


def channel_histograms(images: np.ndarray) -> np.ndarray:
    """Histogram of each channel of uint8 images [..., C], as int64 [C, 256]."""
    return np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])


def make_preprocessing(
    normalisation: Literal["imagenet", "dataset", "none"], image_size: int, counts: np.ndarray | None = None
) -> Preprocessing:
    """Create the preprocessing for `data.normalisation`.

    Args:
      normalisation: with "dataset", mean and deviation come from `counts`.
      image_size: height and width of the network's input, in pixels.
      counts: the `channel_histograms` of all training images.
    """
    if normalisation == "imagenet":
        return Preprocessing(image_size, IMAGENET_MEAN, IMAGENET_STD)
    if normalisation == "none":
        return Preprocessing(image_size, (0.0,) * 3, (1.0,) * 3)
    assert counts is not None
    weights, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = weights @ values
    std = np.sqrt(np.maximum(weights @ values**2 - mean**2, 1e-12))
    channels = np.broadcast_to(np.stack([mean, std]), (2, 3)) if len(mean) == 1 else np.stack([mean, std])
    return Preprocessing(image_size, tuple(channels[0].tolist()), tuple(channels[1].tolist()))


def preprocess(images: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Resize bilinearly and normalise by channel: uint8 [b, H, W, 1 or 3] to float32 [b, size, size, 3]."""
    return normalise(resize(images, preprocessing.image_size), preprocessing)


def resize(images: jax.Array, size: int) -> jax.Array:
    """Scale to 0..1 and resize bilinearly: uint8 [b, H, W, C] to float32 [b, size, size, C]."""
    floats = images.astype(jnp.float32) / 255
    if images.shape[1:3] == (size, size):
        return floats
    return jax.image.resize(floats, (images.shape[0], size, size, images.shape[3]), "bilinear")


def normalise(images: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Subtract the mean and divide by the deviation of each channel: [..., 1 or 3] to [..., 3]."""
    return (images - np.asarray(preprocessing.mean, np.float32)) / np.asarray(preprocessing.std, np.float32)
