"""The description, as plain data, from which a data set is prepared."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.errors import InputError


@dataclass(frozen=True)
class SourceSplit:
    """The examples of one split, in any order.

    Attributes:
      ids: a name for each example.
      labels: a class number for each example.
      keys: what TFDS hashes to order the examples, if its own builder of this data set hashes something else than ids.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """A data set before it is prepared.

    Attributes:
      name: the data set's name, without a namespace.
      version: "1.0.0", for example; raise it whenever the prepared files change.
      class_names: in the order of the labels.
      splits: "train" and "test".
      origin: where the images come from, for messages: "data.root is '...'".
      read: returns an example's image by its id, as encoded bytes or as a uint8 array [H, W, C]; must be thread-safe.
      array_shape: shape of the images if `read` returns arrays, None if it returns encoded bytes.
      size_bytes: approximate size of all images, or a function that finds it.
      find_fingerprint: called with a progress callback, returns what distinguishes data sets that are prepared under
        one name; None if there is only one. It may read all files, so it is called only when it is needed.
      unchanged: whether the data are still those that this source was made from.
      skip_unreadable: whether images that cannot be decoded are left out instead of refused.
      notes: warnings to log when the data set is prepared.
      close: releases what `read` needs; called once, after the last use.
    """

    name: str
    version: str
    class_names: tuple[str, ...]
    origin: str
    splits: Mapping[str, SourceSplit]
    read: Callable[[str], bytes | np.ndarray]
    array_shape: tuple[int, int, int] | None
    size_bytes: int | Callable[[], int]
    find_fingerprint: Callable[[ProgressCallback], str | None] = lambda progress: None
    unchanged: Callable[[], bool] = lambda: True
    skip_unreadable: bool = False
    notes: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None

    @property
    def fingerprint(self) -> str | None:
        """What distinguishes this data set from others that are prepared under its name."""
        return self.find_fingerprint(lambda *_: None)

    @property
    def total_bytes(self) -> int:
        """Approximate size of all images."""
        return self.size_bytes() if callable(self.size_bytes) else self.size_bytes


class _Scans:
    """The sources found so far, while they are remembered."""

    found: dict[Hashable, Source] | None = None


@contextmanager
def scan_once() -> Iterator[None]:
    """Within it, the files of a source are scanned once: for one start, during which nobody expects new files."""
    if _Scans.found is not None:
        yield
        return
    _Scans.found = {}
    try:
        yield
    finally:
        _Scans.found = None


def scanned(key: Hashable, scan: Callable[[], Source]) -> Source:
    """The source that `scan` finds, or found before within `scan_once`."""
    if _Scans.found is None:
        return scan()
    if key not in _Scans.found:
        _Scans.found[key] = scan()
    return _Scans.found[key]


def forget_scans() -> None:
    """Free the memory of what was scanned: the data set is open."""
    if _Scans.found is not None:
        _Scans.found.clear()


def check_source(source: Source) -> None:
    """Check that a source does not contradict itself.

    Raises:
      InputError: for a split without examples, a duplicate id, a duplicate class name, or a label without a class.
    """
    empty = [name for name, split in source.splits.items() if not split.ids]
    if empty:
        raise InputError(f"{source.origin}: there are no images in the split {empty[0]!r}")
    duplicate = _first_duplicate(source.class_names)
    if duplicate is not None:
        raise InputError(f"{source.origin}: the class {duplicate!r} is listed twice")
    duplicate = _first_duplicate([name for split in source.splits.values() for name in split.ids])
    if duplicate is not None:
        raise InputError(f"{source.origin}: the image {duplicate!r} is listed twice; list it once, in one split")
    _check_labels(source)


def missing_class_notes(source: Source) -> tuple[str, ...]:
    """A warning for each split that lacks images of some class."""
    notes = []
    for name, split in source.splits.items():
        present = set(split.labels)
        missing = [class_name for label, class_name in enumerate(source.class_names) if label not in present]
        if missing:
            count = f"{len(missing)} of {len(source.class_names)} classes"
            notes.append(f"{source.name}: no {name} images of {count}: {shorten(missing)}")
    return tuple(notes)


def unreadable_sentence(names: Sequence[str]) -> str:
    """How many images cannot be decoded, and the first few of them."""
    count = "1 image" if len(names) == 1 else f"{len(names)} images"
    return f"{count} cannot be decoded completely: {shorten(names)}"


def shorten(items: Sequence[str], limit: int = 5) -> str:
    """The first `limit` items, separated by commas, and the number of the others."""
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + rest


def _check_labels(source: Source) -> None:
    count = len(source.class_names)
    for split in source.splits.values():
        for name, label in zip(split.ids, split.labels, strict=True):
            if not 0 <= label < count:
                raise InputError(f"{source.origin}: the label of {name!r} is {label}: it must lie in 0 to {count - 1}")


def _first_duplicate(names: Sequence[str]) -> str | None:
    if len(set(names)) == len(names):
        return None
    return next(name for name, count in Counter(names).items() if count > 1)
