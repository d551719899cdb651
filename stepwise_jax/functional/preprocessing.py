"""From stored images to network input: scaling and normalization."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Of the 1.28 million training images of ImageNet, scaled to 0..1; the values that torchvision and timm use.
IMAGENET_MEAN = (0.485, 0.456, 0.406)

IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocessing(NamedTuple):
    """What turns stored images into network input; plain numbers, so that it can be recorded and exported."""

    image_size: int
    mean: tuple[float, ...]
    """Per channel, of images scaled to 0..1."""
    std: tuple[float, ...]


def histograms(images: np.ndarray) -> np.ndarray:
    """How often each channel of uint8 images [..., C] has each value: int64 [C, 256]."""
    return np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])


def make_preprocessing(
    normalisation: Literal["imagenet", "dataset", "none"], image_size: int, counts: np.ndarray | None = None
) -> Preprocessing:
    """The constants of `data.normalisation`; `counts` are the `histograms` of all training images."""
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
    """uint8 [b, H, W, 1 or 3] to float32 [b, size, size, 3]: scaled bilinearly, then normalised by channel."""
    size = preprocessing.image_size
    floats = images.astype(jnp.float32) / 255
    if images.shape[1:3] != (size, size):
        floats = jax.image.resize(floats, (images.shape[0], size, size, images.shape[3]), "bilinear")
    return (floats - np.asarray(preprocessing.mean, np.float32)) / np.asarray(preprocessing.std, np.float32)
