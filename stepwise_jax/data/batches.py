"""Batches on the devices: rows of a resident split, or pixels, and how the network's input is gathered."""

from typing import NamedTuple

import jax
import numpy as np

from stepwise_jax.functional.preprocessing import Preprocessing, preprocess


class Resident(NamedTuple):
    """A whole split on the device."""

    images: jax.Array
    """uint8 [N, H, W, C] with one or three channels."""
    labels: jax.Array
    """int32 [N]."""


class Pixels(NamedTuple):
    """The images of one batch or several, on the device."""

    images: jax.Array
    """uint8 [b, H, W, C], or [k, b, H, W, C]."""
    labels: jax.Array
    """int32 [b], or [k, b]."""


Inputs = jax.Array | Pixels
"""What one call of a program works on: rows int32 [b] or [k, b] of a resident split, or the pixels themselves."""


def evaluation_batch(wanted: int, examples: int) -> int:
    """Images in one evaluation call: as wanted, or as the device likes where that is 0; no more than there are.

    A CPU's caches hold the maps of few images: `benchmarks/evaluation_batches.py` finds its best size.
    """
    return min(wanted or (50 if jax.default_backend() == "cpu" else 250), examples)


def pad_rows(count: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows 0..count-1 in whole batches with a mask: int32 and bool [ceil(count / batch_size), batch_size]."""
    batches = -(-count // batch_size)
    rows = np.arange(batches * batch_size, dtype=np.int32)
    return np.minimum(rows, count - 1).reshape(batches, batch_size), (rows < count).reshape(batches, batch_size)


def gather(examples: Resident | None, inputs: Inputs, preprocessing: Preprocessing) -> tuple[jax.Array, jax.Array]:
    """One batch as network input: images float32 [b, size, size, 3], labels int32 [b].

    Args:
      examples: the split that `inputs` names rows of; None where `inputs` is the pixels themselves.
      picked: rows int32 [b], or uint8 pixels with labels.
      preprocessing: what the network is to see.
    """
    if isinstance(inputs, Pixels):
        return preprocess(inputs.images, preprocessing), inputs.labels
    assert examples is not None
    return preprocess(examples.images[inputs], preprocessing), examples.labels[inputs]
