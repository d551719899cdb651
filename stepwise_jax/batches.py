"""From examples to batches: an order that is a function of (seed, stage, epoch), images made ready on the device."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Of the 1.28 million training images of ImageNet, scaled to 0..1; the values that torchvision and timm use.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Resident(NamedTuple):
    """A whole split on the device."""

    images: jax.Array
    """uint8 [N, H, W, C] with one or three channels."""
    labels: jax.Array
    """int32 [N]."""


class Preprocessing(NamedTuple):
    """What turns stored images into network input; plain numbers, so that it can be recorded and exported."""

    image_size: int
    mean: tuple[float, ...]
    """Per channel, of images scaled to 0..1."""
    std: tuple[float, ...]


def make_preprocessing(
    normalisation: Literal["imagenet", "dataset", "none"], image_size: int, images: np.ndarray
) -> Preprocessing:
    """The constants of `data.normalisation`; `images` uint8 [N, H, W, C] are the training images."""
    if normalisation == "imagenet":
        return Preprocessing(image_size, IMAGENET_MEAN, IMAGENET_STD)
    if normalisation == "none":
        return Preprocessing(image_size, (0.0,) * 3, (1.0,) * 3)
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])
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


def epoch_order(seed: int, stage: int, epoch: int, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """The batches of one epoch, int32 [updates, batch_size]: `rows` in an order new for each (seed, stage, epoch).

    Sorting the counter-based generator's raw output keeps the order the same on every platform and NumPy version,
    which `Generator.permutation` does not promise. A last batch that is not full is dropped.
    """
    generator = np.random.Philox(counter=[0, 0, epoch, stage], key=[seed, 0])
    shuffled = rows[np.argsort(generator.random_raw(len(rows)), kind="stable")]
    updates = len(rows) // batch_size
    return shuffled[: updates * batch_size].reshape(updates, batch_size).astype(np.int32)


def calls(order: np.ndarray, start: int, steps_per_call: int) -> Iterator[np.ndarray]:
    """The batches from step `start` on, int32 [k, batch_size] a call; the last call may be shorter."""
    for first in range(start, len(order), steps_per_call):
        yield order[first : first + steps_per_call]


def steps_in_call(updates: int, most: int) -> int:
    """How many of an epoch's steps one call takes: a divisor near `most`, so that no shorter call compiles too."""
    most = min(most, updates)
    return next((k for k in range(most, most // 2, -1) if updates % k == 0), most)


def pad_rows(count: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows 0..count-1 in whole batches with a mask: int32 and bool [ceil(count / batch_size), batch_size]."""
    batches = -(-count // batch_size)
    rows = np.arange(batches * batch_size, dtype=np.int32)
    return np.minimum(rows, count - 1).reshape(batches, batch_size), (rows < count).reshape(batches, batch_size)


def gather(examples: Resident, rows: jax.Array, preprocessing: Preprocessing) -> tuple[jax.Array, jax.Array]:
    """Rows int32 [b] of a resident split as network input: images float32 [b, size, size, 3], labels int32 [b]."""
    return preprocess(examples.images[rows], preprocessing), examples.labels[rows]
