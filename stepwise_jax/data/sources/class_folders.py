"""Reads folders of images that are named by class, and rejects contents that cannot be used."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stepwise_jax.data.images import SUFFIXES
from stepwise_jax.data.progress import ProgressMeter
from stepwise_jax.data.source import SourceSplit, shorten
from stepwise_jax.errors import InputError
from stepwise_jax.runtime.threads import map_ahead

_OTHER_IMAGES = (".heic", ".heif", ".jxl", ".svg", ".tga")

_SEARCHED_LEVELS = 3

_FILES_PER_TASK = 256

_LARGEST = (1 << 63) - 1

_CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")


class NestedImagesError(InputError):
    """There are images in a subfolder of a class folder."""


class ImageFile(NamedTuple):
    """One image: `id` is its path below the root, with forward slashes; the rest is 0 until somebody asks for it."""

    id: str
    class_name: str
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0


class ClassFolder(NamedTuple):
    """The contents of one class's folder, sorted by name."""

    files: list[ImageFile]
    others: list[str]
    """Names of files that are no images."""
    unsupported: list[str]
    """Names of images of formats that are not read."""


def read_class_folder(root: Path, path: Path, layout: str, status: bool = True) -> ClassFolder:
    """The images of one class, and the names of the other files.

    Args:
      root: the folder that ids are relative to.
      path: the class's folder.
      layout: the expected layout of the folders, for messages.
      status: whether to ask for the size and the times of each file, which names alone do not need.

    Raises:
      InputError: for a folder that has no images or cannot be read, or images in subfolders.
    """
    _check_class_name(path)
    prefix, class_name = path.relative_to(root).as_posix(), path.name
    found = ClassFolder([], [], [])
    for entry in visible_entries(path):
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            _check_not_nested(Path(entry.path), layout)
        elif _is_image(entry.name):
            found.files.append(_file(entry, name, class_name, status))
        else:
            foreign = entry.name.lower().endswith(_OTHER_IMAGES)
            (found.unsupported if foreign else found.others).append(name)
    if not found.files:
        raise InputError(f"class folder {str(path)!r} holds no images ({', '.join(SUFFIXES)})")
    return found


def refuse_unsupported(root: Path, names: Sequence[str], remedy: str = "") -> None:
    """Raise for images of formats that are not read.

    Raises:
      InputError: naming them, if there are any, with a further `remedy`.
    """
    if len(names) == 1:
        path = str(root / names[0])
        raise InputError(f"{path!r} is an image of an unsupported format: convert it to PNG or JPEG{remedy}")
    if names:
        raise InputError(
            f"{str(root)!r} has {len(names)} images of unsupported formats: {quote_names(names)}; "
            f"convert them to PNG or JPEG{remedy}"
        )


def read_status(root: Path, files: Sequence[ImageFile], meter: ProgressMeter) -> np.ndarray:
    """Size, times of modification and of change in nanoseconds, and inode of each file, int64 [N, 4].

    Raises:
      InputError: naming one that cannot be read.
    """
    parts = [files[start : start + _FILES_PER_TASK] for start in range(0, len(files), _FILES_PER_TASK)]
    found = np.zeros((len(files), 4), np.int64)
    for start, future in zip(count(0, _FILES_PER_TASK), map_ahead(partial(_statuses, f"{root}/"), parts), strict=False):
        some = meter.wait_for(future)
        found[start : start + len(some)] = some
        meter.advance(len(some))
    return found


def _statuses(prefix: str, files: Sequence[ImageFile]) -> list[tuple[int, int, int, int]]:
    return [_status(prefix + file.id) for file in files]


def _file(entry: os.DirEntry[str], name: str, class_name: str, status: bool) -> ImageFile:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of {entry.path!r} is not valid UTF-8: rename the file") from error
    file = ImageFile(name, class_name)
    # Folders say of each name whether it is a file.
    if not status and entry.is_file():
        return file
    return ImageFile(name, class_name, *_status(entry.path))


def _status(path: str) -> tuple[int, int, int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"{path!r} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path!r} is named like an image but is not a file")
    # Some file systems number files with all 64 bits.
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _LARGEST


def _check_class_name(path: Path) -> None:
    # TFDS stores class names one per line, without surrounding spaces.
    if path.name != path.name.strip() or len(path.name.splitlines()) != 1:
        raise InputError(
            f"class folder {str(path)!r}: its name must not start or end with a space or contain a line break"
        )


def _check_not_nested(folder: Path, layout: str) -> None:
    for path, names, files in os.walk(folder):
        names[:] = [name for name in names if not _is_clutter(name)]
        found = [name for name in files if _is_image(name)]
        if found:
            nested = os.path.join(path, found[0])
            raise NestedImagesError(
                f"{nested!r} is in a subfolder of a class folder, not directly in one: use {layout}"
            )


def suggestion(root: Path) -> str:
    """The end of a message that names a folder with class folders below `root`; empty if three levels have none."""
    found = next(_folders_of_classes(root), None)
    return f"; or name the folder {str(found)!r}, which has class folders" if found else ""


def _folders_of_classes(root: Path) -> Iterator[Path]:
    for folder, names, _ in os.walk(root):
        path = Path(folder)
        names[:] = sorted(name for name in names if not _is_clutter(name))
        if len(path.relative_to(root).parts) == _SEARCHED_LEVELS:
            names.clear()
        if path != root and (_holds_classes(path) or ("train" in names and _holds_classes(path / "train"))):
            yield path


def _holds_classes(path: Path) -> bool:
    """Whether a folder has at least two folders of images, and no images of its own."""
    try:
        return not image_names(path) and sum(bool(image_names(path / name)) for name in folder_names(path)) >= 2
    except InputError:
        return False


def hash_status(files: Iterable[ImageFile]) -> str:
    """A hash that changes whenever a file is added, removed, renamed, replaced or rewritten, without reading any."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"\0{file.id}\0{file.size}\0{file.mtime_ns}\0{file.ctime_ns}\0{file.inode}".encode())
    return digest.hexdigest()


def visible_entries(path: Path) -> list[os.DirEntry[str]]:
    """The contents of a folder, sorted by name, without hidden files and file managers' clutter."""
    try:
        with os.scandir(path) as found:
            return sorted((entry for entry in found if not _is_clutter(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def folder_names(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted."""
    return [entry.name for entry in visible_entries(path) if entry.is_dir()]


def image_names(path: Path) -> list[str]:
    """Names of the images in a folder, sorted."""
    return [entry.name for entry in visible_entries(path) if not entry.is_dir() and _is_image(entry.name)]


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def split(files: Sequence[ImageFile], class_names: Sequence[str]) -> SourceSplit:
    """A split of these images, labelled by the position of their class in `class_names`."""
    index = {name: label for label, name in enumerate(class_names)}
    return SourceSplit(tuple(file.id for file in files), tuple(index[file.class_name] for file in files))


def quote_names(names: Sequence[str]) -> str:
    """The first few names in quotes, and the number of the others."""
    return shorten([repr(name) for name in names])
