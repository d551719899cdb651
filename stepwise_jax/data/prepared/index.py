"""The index of a split: its labels, its ids and a hash of its images, kept so that a start need not read every record.

One file for each split, beside the records that `prepare` wrote, or else in the user's cache. It is valid while the
record files have the names, sizes and times that it lists, and it is made again, from the records, where it is not.
Beside it are the histograms of decoded images that training has counted, each valid for the images of one hash.
"""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np

from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.prepared.locating import is_ours
from stepwise_jax.data.prepared.reading import RecordReader, checked_labels
from stepwise_jax.data.progress import ProgressCallback, progress_meter
from stepwise_jax.runtime.files import atomic_write, user_cache
from stepwise_jax.runtime.threads import map_ahead

_FORMAT = 1

_DIGEST_BYTES = 16

_log = logging.getLogger(__name__)

Stamp = list[list[Any]]
"""Name, size in bytes and time of change in nanoseconds of each record file of a split."""


@dataclass(frozen=True, eq=False)
class SplitIndex:
    """What is known of a split without reading its records.

    Attributes:
      labels: int64 [N], in the order on disk, as they are stored: -1 where there is none.
      ids: of the N examples.
      content_sha256: hash over the SHA-256 of each image, in the order on disk; `prepare` records the same.
    """

    labels: np.ndarray
    ids: tuple[str, ...]
    content_sha256: str

    @functools.cached_property
    def labels_sha256(self) -> str:
        """Hash of the labels, in the order on disk."""
        return hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()


def find_index(dataset: Dataset, split: str, progress: ProgressCallback = lambda *_: None) -> SplitIndex:
    """The index of a split, "train" or "test"; it is made and kept if there is none.

    Raises:
      InputError: if it must be made and records are damaged.
      ReadError: if it must be made and records cannot be read.
    """
    stored = dataset.test_split if split == "test" else split
    files = [Path(path) for path in dataset.builder.info.splits[stored].filepaths]
    try:
        stamp = stamp_files(files)
    except OSError:
        # Reading the records says what is wrong.
        return read_index(dataset, split, progress)
    known = _opened.setdefault(dataset.builder, {})
    if stored not in known or known[stored][0] != stamp:
        known[stored] = stamp, _load_or_make(dataset, split, stamp, progress)
    return known[stored][1]


_opened: "WeakKeyDictionary[Any, dict[str, tuple[Stamp, SplitIndex]]]" = WeakKeyDictionary()
"""The indexes of the data sets that are open, by TFDS's builder: a start needs each several times."""


def _load_or_make(dataset: Dataset, split: str, stamp: Stamp, progress: ProgressCallback) -> SplitIndex:
    places = _places(Path(dataset.builder.data_dir), dataset.test_split if split == "test" else split)
    for place in places:
        index = _load(place, stamp)
        if index is not None:
            return index
    index = read_index(dataset, split, progress)
    for place in places:
        with suppress(OSError):
            write_index(place, index, stamp)
            break
    return index


def labels_and_ids(
    dataset: Dataset,
    split: str,
    rows: Sequence[int] | None = None,
    progress: ProgressCallback = lambda *_: None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, int32 [N], and ids of a split, or of rows of it, in the order on disk, without decoding images."""
    index = find_index(dataset, split, progress)
    labels, ids = index.labels, index.ids
    if isinstance(rows, range) and rows.step == 1:
        labels, ids = labels[rows.start : rows.stop], ids[rows.start : rows.stop]
    elif rows is not None:
        labels, ids = labels[np.asarray(rows, np.int64)], tuple(ids[row] for row in rows)
    return checked_labels(dataset, split, labels), ids


def stamp_files(files: Sequence[os.PathLike[str]]) -> Stamp:
    """What an index is compared with to see whether it is that of these record files."""
    return [
        [os.path.basename(path), status.st_size, status.st_mtime_ns] for path in files for status in [os.stat(path)]
    ]


def index_path(folder: Path, stored: str) -> Path:
    """Where `prepare` keeps the index of a split beside its records."""
    return folder / f"{stored}.index"


def _places(folder: Path, stored: str) -> list[Path]:
    """Where an index may be, the first that can be written first. Nothing is written among the files of others."""
    cache, name = user_cache(), hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
    ours = [index_path(folder, stored)] if is_ours(folder) else []
    return [*ours, *([cache / "indexes" / f"{name}.{stored}.index"] if cache else [])]


def find_histograms(
    dataset: Dataset, rows: Sequence[int], shape: tuple[int, int, int], count: Callable[[], np.ndarray]
) -> np.ndarray:
    """The histogram of each channel over decoded training images, int64 [C, 256]; counted and kept if there is none.

    Args:
      dataset: an opened data set.
      rows: the rows of its training images that are used.
      shape: [H, W, C] of each decoded image.
      count: returns the histograms.
    """
    images = find_index(dataset, "train").content_sha256
    used = hashlib.sha256(np.asarray(rows, "<i8").tobytes()).hexdigest()
    # Another version of the decoder may give other pixels.
    key = hashlib.sha256(json.dumps([images, used, shape, cv2.__version__]).encode()).hexdigest()[:16]
    places = [path.with_suffix(f".{key}.json") for path in _places(Path(dataset.builder.data_dir), "train")]
    for place in places:
        counts = _load_histograms(place)
        if counts.shape == (shape[2], 256) and (counts.sum(axis=1) == len(rows) * shape[0] * shape[1]).all():
            return counts
    counts = count()
    for place in places:
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(place) as file:
                file.write(json.dumps(counts.tolist()).encode())
            break
    return counts


def _load_histograms(path: Path) -> np.ndarray:
    """The histograms in a file; an empty array if there is none, or it is damaged."""
    try:
        return np.array(json.loads(path.read_bytes()), np.int64)
    except (OSError, ValueError, TypeError, OverflowError):
        return np.zeros(0, np.int64)


def read_index(dataset: Dataset, split: str, progress: ProgressCallback) -> SplitIndex:
    """Make the index of a split from all its records.

    Raises:
      InputError: if records are damaged.
      ReadError: if records cannot be read.
    """
    reader, digest = RecordReader(dataset, split), hashlib.sha256()
    labels: list[int] = []
    ids: list[str] = []
    with progress_meter(progress, len(reader), f"{dataset.name}: indexing {split} images") as meter:
        for future in map_ahead(partial(_read_chunk, reader), reader.chunks()):
            some_labels, some_ids, hashes = meter.wait_for(future)
            labels += some_labels
            ids += some_ids
            digest.update(hashes)
            meter.advance(len(some_ids))
    return SplitIndex(np.array(labels, np.int64), tuple(ids), digest.hexdigest())


def _read_chunk(reader: RecordReader, rows: range) -> tuple[list[int], list[str], bytes]:
    """Labels and ids of some rows, and the SHA-256 of each image, one after the other."""
    labels, ids, hashes = [], [], []
    for image, label, name in reader.read(rows):
        labels.append(label)
        ids.append(name)
        hashes.append(hashlib.sha256(image.tobytes() if isinstance(image, np.ndarray) else image).digest())
    return labels, ids, b"".join(hashes)


def write_index(path: Path, index: SplitIndex, stamp: Stamp) -> None:
    """Write an index, all at once.

    Raises:
      OSError: if it cannot be written.
    """
    names = "\0".join(index.ids).encode()
    fields = {"format": _FORMAT, "files": stamp, "examples": len(index.ids), "content_sha256": index.content_sha256}
    head, labels = json.dumps(fields).encode() + b"\n", index.labels.astype("<i8").tobytes()
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in (head, labels, names):
        digest.update(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.writelines((digest.digest(), head, labels, names))


def _load(path: Path, stamp: Stamp) -> SplitIndex | None:
    """The index in a file; None if there is none, or it is damaged, or other record files have the stamp."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body = memoryview(content)[_DIGEST_BYTES:]
    if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != content[:_DIGEST_BYTES]:
        _log.warning(f"the index {str(path)!r} is damaged: it is made anew")
        return None
    end = content.index(b"\n", _DIGEST_BYTES)
    fields = json.loads(content[_DIGEST_BYTES:end])
    if fields["format"] != _FORMAT or fields["files"] != stamp:
        return None
    names = end + 1 + 8 * fields["examples"]
    labels = np.frombuffer(content[end + 1 : names], "<i8").astype(np.int64)
    ids = tuple(content[names:].decode().split("\0"))
    # An id that holds a zero byte itself is not kept.
    return SplitIndex(labels, ids, fields["content_sha256"]) if len(ids) == len(labels) else None
