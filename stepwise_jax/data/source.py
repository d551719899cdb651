"""What a data set is made from: the plain data that each of our data sets describes itself by."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stepwise_jax.errors import InputError


@dataclass(frozen=True)
class SourceSplit:
    """The examples of one split: `ids` and, beside them, `labels` (int) in any order.

    `keys` are what TFDS hashes to put examples in order, where its own builder of this data set hashes others than ids.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    keys: tuple[str, ...] | None = None


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
      close: gives back what was held for `read`; called once, after the last use.
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
    close: Callable[[], None] = lambda: None


def check(source: Source) -> None:
    """Refuses a source that cannot be prepared as it describes itself.

    Raises:
      InputError: for a split without examples, an id that comes twice, a class name that comes twice, or a label
        without a class.
    """
    empty = [name for name, split in source.splits.items() if not split.ids]
    if empty:
        raise InputError(f"{source.place}: there are no images for the split {empty[0]!r}")
    twice = _twice(source.class_names)
    if twice is not None:
        raise InputError(f"{source.place}: the class {twice!r} comes twice")
    twice = _twice([name for split in source.splits.values() for name in split.ids])
    if twice is not None:
        raise InputError(f"{source.place}: the image {twice!r} comes twice; each must come once, in one split")
    _check_labels(source)


def absent_classes(source: Source) -> tuple[str, ...]:
    """A sentence for each split that lacks images of some class."""
    notes = []
    for name, split in source.splits.items():
        present = set(split.labels)
        absent = [class_name for label, class_name in enumerate(source.class_names) if label not in present]
        if absent:
            few = ", ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
            notes.append(
                f"{source.name}: no {name} images of {len(absent)} of {len(source.class_names)} classes: {few}"
            )
    return tuple(notes)


def _check_labels(source: Source) -> None:
    count = len(source.class_names)
    for split in source.splits.values():
        for name, label in zip(split.ids, split.labels, strict=True):
            if not 0 <= label < count:
                raise InputError(f"{source.place}: the label of {name!r} is {label}: it must lie in 0 to {count - 1}")


def _twice(names: Sequence[str]) -> str | None:
    """The first name that comes a second time."""
    if len(set(names)) == len(names):
        return None
    return next(name for name, count in Counter(names).items() if count > 1)
