"""Hashes of files' contents, remembered so that an unchanged folder is not read again."""

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stepwise_jax.data.progress import ProgressCallback, progress_meter
from stepwise_jax.data.sources.class_folders import ImageFile
from stepwise_jax.runtime.files import atomic_write
from stepwise_jax.runtime.threads import map_ahead

_FORMAT = 2

# A file that changes twice within one tick of the file system's clock has the same times both times.
_SETTLED_SECONDS = 3.0

_FILES_PER_TASK = 64

_DIGEST_BYTES = 16

_UNREADABLE = bytes(_DIGEST_BYTES)


class _Known(NamedTuple):
    """What is remembered of M files: their ids, their status, int64 [M, 4], and their hashes, uint8 [M, 16]."""

    ids: list[str]
    status: np.ndarray
    hashes: np.ndarray


_NOTHING = _Known([], np.zeros((0, 4), np.int64), np.zeros((0, _DIGEST_BYTES), np.uint8))


def fingerprint(
    root: Path,
    files: Sequence[ImageFile],
    status: np.ndarray,
    settings: str,
    folder: Path,
    progress: ProgressCallback = lambda *_: None,
) -> str:
    """A hash that changes whenever an image's content, path or class changes, or the settings do; not with times.

    Args:
      root: the folder that the files' ids are relative to.
      files: the N images.
      status: what `class_folders.read_status` returns of them, int64 [N, 4].
      settings: what else the prepared data depend on.
      folder: where the hashes are remembered: by path, size, times and inode, in one file for each root.
      progress: called as `progress(done, total, task)` if files must be read.

    A file that cannot be read has a hash of its own: reading it again, to prepare it, reports why.
    """
    digest = hashlib.sha256(settings.encode())
    hashes = hash_contents(root, files, status, folder, progress)
    for file, content in zip(files, map(bytes, hashes), strict=True):
        word = "unreadable" if content == _UNREADABLE else content.hex()
        digest.update(f"\0{file.id}\0{file.class_name}\0{word}".encode())
    return digest.hexdigest()[:16]


def hash_contents(
    root: Path, files: Sequence[ImageFile], status: np.ndarray, folder: Path, progress: ProgressCallback
) -> np.ndarray:
    """The hash of each file's content, uint8 [N, 16], 0 if it cannot be read; only new and changed files are read."""
    path = folder / f"hashes.{hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]}.npz"
    known, ids = _read(path), [file.id for file in files]
    hashes, unchanged = _recall(known, ids, status)
    unknown = np.flatnonzero(~unchanged)
    if len(unknown):
        _hash_files(root, files, unknown, hashes, progress)
    if len(unknown) or len(known.ids) > len(ids):
        kept = unchanged | _settled(status, hashes)
        names = [name for name, keep in zip(ids, kept.tolist(), strict=True) if keep]
        _write(path, _Known(names, status[kept], hashes[kept]))
    return hashes


def _recall(known: _Known, ids: list[str], status: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The remembered hashes, uint8 [N, 16], and which of the files are unchanged, bool [N]."""
    rows = np.arange(len(ids))
    if ids != known.ids:
        places = {name: row for row, name in enumerate(known.ids)}
        rows = np.array([places.get(name, -1) for name in ids], np.int64)
    # The last row, that of a file which is not remembered, is the status of none.
    unchanged = (np.vstack([known.status, np.full((1, 4), -1)])[rows] == status).all(axis=1)
    hashes = np.vstack([known.hashes, np.zeros((1, _DIGEST_BYTES), np.uint8)])[rows]
    return hashes, unchanged


def _hash_files(
    root: Path, files: Sequence[ImageFile], rows: np.ndarray, hashes: np.ndarray, progress: ProgressCallback
) -> None:
    """Read the files of some rows, and set their hashes."""
    parts = [rows[start : start + _FILES_PER_TASK] for start in range(0, len(rows), _FILES_PER_TASK)]
    with progress_meter(progress, len(rows), "image_folder: reading new and changed images") as meter:
        found = map_ahead(lambda part: b"".join(_hash_file(root, files[row]) for row in part), parts)
        for part, future in zip(parts, found, strict=True):
            hashes[part] = np.frombuffer(meter.wait_for(future), np.uint8).reshape(-1, _DIGEST_BYTES)
            meter.advance(len(part))


def _hash_file(root: Path, file: ImageFile) -> bytes:
    try:
        with open(f"{root}/{file.id}", "rb") as content:
            return hashlib.blake2b(content.read(), digest_size=_DIGEST_BYTES).digest()
    except OSError:
        return _UNREADABLE


def _settled(status: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Which files, bool [N], were read and had not changed just before: the others may have changed since."""
    newest = time.time_ns() - int(_SETTLED_SECONDS * 1e9)
    return (status[:, 2] < newest) & hashes.any(axis=1)


def _read(path: Path) -> _Known:
    """What is remembered; nothing if the file is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            names, status, hashes = (stored[name] for name in ("ids", "status", "hashes"))
            known = _Known(names.tobytes().decode().split("\0") if len(names) else [], status, hashes)
            valid = int(stored["format"]) == _FORMAT
    # A damaged file raises errors of nearly any type.
    except Exception:
        return _NOTHING
    shapes = known.status.shape, known.hashes.shape
    kinds = known.status.dtype, known.hashes.dtype
    valid &= shapes == ((len(known.ids), 4), (len(known.ids), _DIGEST_BYTES)) and kinds == (np.int64, np.uint8)
    return known if valid else _NOTHING


def _write(path: Path, known: _Known) -> None:
    names = np.frombuffer("\0".join(known.ids).encode(), np.uint8)
    # Where nothing may be written, the files are read every time.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, format=np.array(_FORMAT), ids=names, status=known.status, hashes=known.hashes)
