"""Batches on the devices: rows of a resident split or streamed images, and how they become the network's input."""

from typing import NamedTuple

import jax
import numpy as np

from stepwise_jax.functional.preprocessing import Preprocessing, preprocess


class ResidentSplit(NamedTuple):
    """A whole split on the device."""

    images: jax.Array
    """uint8 [N, H, W, C] with one or three channels."""
    labels: jax.Array
    """int32 [N]."""


class ImageBatch(NamedTuple):
    """The images and labels of one batch or several, on the device."""

    images: jax.Array
    """uint8 [b, H, W, C], or [k, b, H, W, C]."""
    labels: jax.Array
    """int32 [b], or [k, b]."""


Inputs = jax.Array | ImageBatch
"""The batch of one call of a program: rows int32 [b] or [k, b] of a resident split, or the images themselves."""


def evaluation_batch_size(requested: int, examples: int) -> int:
    """Images per evaluation call, at most `examples`: as requested, or a good size for the device where that is 0.

    A CPU's caches hold the feature maps of few images: `benchmarks/evaluation_batches.py` finds its best size.
    """
    return min(requested or (50 if jax.default_backend() == "cpu" else 250), examples)


def pad_rows(count: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows 0..count-1 in whole batches with a mask: int32 and bool [ceil(count / batch_size), batch_size]."""
    batches = -(-count // batch_size)
    rows = np.arange(batches * batch_size, dtype=np.int32)
    return np.minimum(rows, count - 1).reshape(batches, batch_size), (rows < count).reshape(batches, batch_size)


def gather_batch(
    examples: ResidentSplit | None, inputs: Inputs, preprocessing: Preprocessing
) -> tuple[jax.Array, jax.Array]:
    """One batch as network input: images float32 [b, size, size, 3], labels int32 [b].

    Args:
      examples: the split that `inputs` indexes; None where `inputs` holds the images themselves.
      inputs: rows int32 [b], or uint8 images with labels.
      preprocessing: image size, mean and standard deviation of the network's input.
    """
    if isinstance(inputs, ImageBatch):
        return preprocess(inputs.images, preprocessing), inputs.labels
    assert examples is not None
    return preprocess(examples.images[inputs], preprocessing), examples.labels[inputs]
