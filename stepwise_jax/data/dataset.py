"""Types of a prepared data set: its sizes, the opened data set, and its decoded examples."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """Number of training examples, of test examples, and of classes."""

    train: int
    test: int
    num_classes: int


@dataclass(frozen=True)
class Dataset:
    """A prepared data set, opened for reading.

    Attributes:
      name: as in `data.name`.
      version: version of the prepared data.
      class_names: in the order of the labels.
      image_shape: (height, width, channels) if all images have one shape, None otherwise.
      builder: TFDS's read-only builder; `builder.info.splits` computes subsplits.
      test_split: the name of the test images on disk.
      left_out: rows on disk of the training split that are not used, in ascending order.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    builder: Any
    test_split: str = "test"
    left_out: tuple[int, ...] = ()


@dataclass(frozen=True)
class Examples:
    """A whole split in memory, in the order on disk.

    Attributes:
      images: uint8 [N, H, W, C]; C is 1 for greyscale data sets and 3 otherwise.
      labels: int32 [N].
      ids: N names, unique within the split.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: tuple[str, ...]
