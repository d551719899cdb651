"""Batches on the devices: rows of a resident split or streamed images, and how they become the network's input."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from stepwise_jax.errors import InputError
from stepwise_jax.functional.preprocessing import Preprocessing, preprocess
from stepwise_jax.plans.stage import Stage


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
    return preprocess(gather_images(examples, inputs), preprocessing), gather_labels(examples, inputs)


def gather_images(examples: ResidentSplit | None, inputs: Inputs) -> jax.Array:
    """The images of a batch as they are stored, with the arguments of `gather_batch`: uint8 [b, H, W, C]."""
    if isinstance(inputs, ImageBatch):
        return inputs.images
    assert examples is not None
    return examples.images[inputs]


def gather_labels(examples: ResidentSplit | None, inputs: Inputs) -> jax.Array:
    """The labels of a batch, with the arguments of `gather_batch`: int32 [b]."""
    if isinstance(inputs, ImageBatch):
        return inputs.labels
    assert examples is not None
    return examples.labels[inputs]


def check_batch_sizes(stages: Sequence[Stage], mesh: Mesh) -> None:
    """Refuse a batch size that does not divide evenly among the devices.

    Raises:
      InputError: names the nearest batch sizes that fit, and the numbers of devices that fit every stage.
    """
    devices = mesh.size
    for index, stage in enumerate(stages, start=1):
        below = stage.batch_size // devices * devices
        if below != stage.batch_size:
            fitting = " or ".join(str(size) for size in (below, below + devices) if size)
            raise InputError(
                f"batch_size of stage {index} ({stage.name}) is {stage.batch_size}: "
                f"{devices} devices share a batch evenly, so it must be {fitting}; "
                f"the batches of this plan fit {_device_counts(stages, devices)}"
            )


def _device_counts(stages: Sequence[Stage], most: int) -> str:
    """Say which numbers of devices below `most` divide every stage's batch evenly."""
    common = math.gcd(*(stage.batch_size for stage in stages))
    *others, last = (str(count) for count in range(1, most) if common % count == 0)
    return f"{', '.join(others)} or {last} devices" if others else "one device alone"
