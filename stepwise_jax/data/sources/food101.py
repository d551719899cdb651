"""Food-101 (Bossard et al., 2014): photographs of 101 dishes, split by the authors' lists."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stepwise_jax.data.disk import check_free_space, write_error
from stepwise_jax.data.progress import ProgressCallback, ProgressMeter
from stepwise_jax.data.source import Source, SourceSplit, shorten
from stepwise_jax.data.sources import archive
from stepwise_jax.errors import InputError

_FOLDER = "food-101"

_IMAGES, _META = "images", "meta"

_CLASSES = "meta/classes.txt"

# Each list comes in two equivalent formats; the first one found is read.
_LISTS = {"train": ("meta/train.json", "meta/train.txt"), "test": ("meta/test.json", "meta/test.txt")}

_META_FILES = (_CLASSES, *_LISTS["train"], *_LISTS["test"])


@dataclass(frozen=True)
class _Files:
    """The files below food-101/: contents of the lists and sizes of the images by name, and how to read an image."""

    lists: Mapping[str, bytes]
    sizes: Mapping[str, int]
    read: Callable[[str], bytes]
    close: Callable[[], None]


def source(name: str, path: Path, scratch: Path, progress: ProgressCallback) -> Source:
    """The original JPEGs with the keys and ids of TFDS ("apple_pie/1005649"), so that train[:k] is TFDS's train[:k].

    Args:
      name: "food101".
      path: food-101.tar.gz, or the folder extracted from it.
      scratch: a folder for the unpacked archive, until the source is closed.
      progress: called while an archive is unpacked.

    Raises:
      InputError: if the path holds something else, listed images are missing, or the lists contradict themselves.
    """
    files = _from_folder(path) if path.is_dir() else _from_archive(path, scratch, progress)
    try:
        return _source(name, path, files)
    except BaseException:
        files.close()
        raise


def _source(name: str, path: Path, files: _Files) -> Source:
    class_names = _lines(path, *_list(path, files, (_CLASSES,)))
    splits = {split: _split(path, files, names, class_names) for split, names in _LISTS.items()}
    ids = [example for split in splits.values() for example in split.ids]
    missing = [example for example in ids if _file(example) not in files.sizes]
    if missing:
        listed = shorten([_file(example) for example in missing], 3)
        raise InputError(f"{str(path)!r} lacks {len(missing):,} images that its lists name: {listed}")
    return Source(
        name=name,
        version="1.0.0",
        class_names=tuple(class_names),
        origin=repr(str(path)),
        splits=splits,
        read=lambda example: files.read(_file(example)),
        array_shape=None,
        size_bytes=sum(files.sizes[_file(example)] for example in ids),
        close=files.close,
    )


def _file(example: str) -> str:
    return f"{_IMAGES}/{example}.jpg"


def _split(path: Path, files: _Files, names: Sequence[str], class_names: Sequence[str]) -> SourceSplit:
    name, content = _list(path, files, names)
    ids = _json_ids(path, name, content) if name.endswith(".json") else _lines(path, name, content)
    labels = {class_name: label for label, class_name in enumerate(class_names)}
    for example in ids:
        parts = example.split("/")
        if len(parts) != 2 or parts[0] not in labels or parts[1] in ("", ".", "..") or "\0" in example:
            raise InputError(f"{str(path)!r}: {name} names {example!r}: it must be CLASS/IMAGE, CLASS in {_CLASSES}")
    return SourceSplit(tuple(ids), tuple(labels[example.split("/")[0]] for example in ids))


def _list(path: Path, files: _Files, names: Sequence[str]) -> tuple[str, bytes]:
    for name in names:
        if name in files.lists:
            return name, files.lists[name]
    raise InputError(f"{str(path)!r} lacks {_FOLDER}/{names[0]}: the copy of food101 is incomplete")


def _lines(path: Path, name: str, content: bytes) -> list[str]:
    try:
        return [line.strip() for line in content.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r}: {name} is damaged: {error}") from error


def _json_ids(path: Path, name: str, content: bytes) -> list[str]:
    """The ids of all classes, concatenated."""
    try:
        return [str(example) for examples in json.loads(content).values() for example in examples]
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{str(path)!r}: {name} is damaged: {error}") from error


def _is_needed(name: str) -> bool:
    return name in _META_FILES or (name.startswith(f"{_IMAGES}/") and name.endswith(".jpg"))


def _from_folder(path: Path) -> _Files:
    root = path / _FOLDER if (path / _FOLDER).is_dir() else path
    if not (root / _META).is_dir():
        raise InputError(f"{str(path)!r} is not food101: it must hold {_FOLDER}/{_META} and {_FOLDER}/{_IMAGES}")
    try:
        lists = {name: (root / name).read_bytes() for name in _META_FILES if (root / name).is_file()}
        sizes = {
            f"{_IMAGES}/{folder.name}/{file.name}": file.stat().st_size
            for folder in os.scandir(root / _IMAGES)
            if folder.is_dir()
            for file in os.scandir(folder.path)
            if file.is_file()
        }
    except OSError as error:
        raise InputError(f"{str(root)!r} cannot be read: {error}") from error
    return _Files(lists, sizes, lambda name: (root / name).read_bytes(), lambda: None)


def _from_archive(path: Path, scratch: Path, progress: ProgressCallback) -> _Files:
    # A compressed archive can only be read from its start, and the images are stored in another order. They are copied
    # to one unnamed file, which vanishes with the process however it ends; no name from the archive becomes a path.
    needed = 2 * path.stat().st_size
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        check_free_space(scratch, needed)
        with ExitStack() as stack:
            file = stack.enter_context(tempfile.TemporaryFile(dir=scratch))
            lists, extents = _unpack(path, file, progress)
            close = stack.pop_all().close
    except OSError as error:
        raise write_error(scratch, error, needed) from error

    def read(name: str) -> bytes:
        offset, size = extents[name]
        return os.pread(file.fileno(), size, offset)

    return _Files(lists, {name: size for name, (_, size) in extents.items()}, read, close)


def _unpack(
    path: Path, file: BinaryIO, progress: ProgressCallback
) -> tuple[dict[str, bytes], dict[str, tuple[int, int]]]:
    """Copy the images to `file`; return the contents of the lists, and each image's offset and size in `file`."""
    meter = ProgressMeter(progress, 101_000, f"{path.name}: unpacking images")
    lists: dict[str, bytes] = {}
    extents: dict[str, tuple[int, int]] = {}
    prefix = f"{_FOLDER}/"
    for member, content in archive.files(path, lambda name: _is_needed(name.removeprefix(prefix))):
        name = member.removeprefix(prefix)
        if name.startswith(f"{_META}/"):
            lists[name] = content
        else:
            extents[name] = file.tell(), len(content)
            file.write(content)
            meter.advance()
    file.flush()
    return lists, extents
