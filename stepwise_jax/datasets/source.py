"""What a data set is made from: the plain data that each of our data sets describes itself by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SourceSplit:
    """The examples of one split: `ids` and, beside them, `labels` (int) in any order."""

    ids: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """A data set before it is prepared.

    Attributes:
      name: the data set's name, without a namespace.
      version: to be raised whenever the prepared form changes; "1.0.0".
      class_names: in the order of the labels.
      splits: "train" and "test".
      place: where the images come from, for messages: "data.root is '...'".
      read: gives an example's image by its id: encoded bytes, or a uint8 array [H, W, C]. Called from several threads.
      array_shape: shape of the images where `read` gives arrays, None where it gives encoded bytes.
      size_bytes: about how much all images take.
      fingerprint: tells apart what may be prepared under one name; None where there is but one.
      unchanged: whether the data are still those that this source was made from.
      notes: sentences to warn the user with when the data set is prepared.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    place: str
    splits: Mapping[str, SourceSplit]
    read: Callable[[str], bytes | np.ndarray]
    array_shape: tuple[int, int, int] | None
    size_bytes: int
    fingerprint: str | None = None
    unchanged: Callable[[], bool] = lambda: True
    notes: tuple[str, ...] = ()
