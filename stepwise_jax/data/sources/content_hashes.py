"""Hashes of files' contents, remembered so that an unchanged folder is not read again."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stepwise_jax.data.sources.class_folders import ImageFile
from stepwise_jax.runtime.files import atomic_write
from stepwise_jax.runtime.threads import map_ahead

_FORMAT = 1

# A file that changes twice within one tick of the file system's clock has the same times both times.
_SETTLED_SECONDS = 3.0

_FILES_PER_TASK = 64

_UNREADABLE = "unreadable"


def fingerprint(root: Path, files: Sequence[ImageFile], settings: str, folder: Path) -> str:
    """A hash that changes whenever an image's content, path or class changes, or the settings do; not with times.

    Args:
      root: the folder that the files' ids are relative to.
      files: the images.
      settings: what else the prepared data depend on.
      folder: where the hashes are remembered: by path, size, times and inode, in one file for each root.

    A file that cannot be read has a hash of its own: reading it again, to prepare it, reports why.
    """
    digest = hashlib.sha256(settings.encode())
    for file, content in zip(files, hash_contents(root, files, folder), strict=True):
        digest.update(f"\0{file.id}\0{file.class_name}\0{content}".encode())
    return digest.hexdigest()[:16]


def hash_contents(root: Path, files: Sequence[ImageFile], folder: Path) -> list[str]:
    """The hash of each file's content (hexadecimal); only files that are new or changed are read."""
    path = folder / f"hashes.{hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]}.json"
    known = _read(path)
    unknown = [file for file in files if file.id not in known or known[file.id][:-1] != _status(file)]
    parts = [unknown[start : start + _FILES_PER_TASK] for start in range(0, len(unknown), _FILES_PER_TASK)]
    found: dict[str, str] = {}
    for future in map_ahead(lambda part: {file.id: _hash_file(root, file) for file in part}, parts):
        found |= future.result()
    hashes = [found.get(file.id) or known[file.id][-1] for file in files]
    if unknown or len(known) > len(files):
        _write(path, {file.id: [*_status(file), each] for file, each in zip(files, hashes, strict=True)}, found)
    return hashes


def _status(file: ImageFile) -> list[int]:
    return [file.size, file.mtime_ns, file.ctime_ns, file.inode]


def _hash_file(root: Path, file: ImageFile) -> str:
    try:
        with open(root / file.id, "rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return _UNREADABLE


def _read(path: Path) -> Mapping[str, Sequence[Any]]:
    """What is remembered; nothing if the file is missing or damaged."""
    try:
        document = json.loads(path.read_bytes())
        entries = document["files"] if document["format"] == _FORMAT else {}
        valid = all(len(entry) == 5 and len(bytes.fromhex(entry[-1])) == 16 for entry in entries.values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    return entries if valid else {}


def _write(path: Path, entries: Mapping[str, Sequence[Any]], found: Mapping[str, str]) -> None:
    """Remember entries, except files read just now that had changed just before: they may have changed since."""
    newest = time.time_ns() - int(_SETTLED_SECONDS * 1e9)
    settled = {
        name: entry
        for name, entry in entries.items()
        if name not in found or (entry[2] < newest and entry[-1] != _UNREADABLE)
    }
    # Where nothing may be written, the files are read every time.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(json.dumps({"format": _FORMAT, "files": settled}).encode())
