"""A user's own images: one folder per class."""

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stepwise_jax.config import DataConfig
from stepwise_jax.datasets.held_out import held_out
from stepwise_jax.datasets.images import SUFFIXES
from stepwise_jax.datasets.source import Source, SourceSplit
from stepwise_jax.errors import InputError

_LAYOUT = "root/train/CLASS/* with root/test/CLASS/*, or root/CLASS/* alone"
_OTHER_IMAGES = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".ppm", ".pgm", ".tga")
_CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")


class _File(NamedTuple):
    """One image: `id` is its path below the root, with forward slashes."""

    id: str
    class_name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class _Folder:
    """What one folder of class folders holds."""

    class_names: tuple[str, ...]
    files: tuple[_File, ...]
    others: tuple[str, ...]


def source(data: DataConfig) -> Source:
    """The images below `data.root`: root/train/CLASS/* and root/test/CLASS/*, or root/CLASS/* alone.

    Images end in .jpg, .jpeg, .png, .webp or .bmp, in any letter case; hidden files and the clutter of file managers
    are passed over. Other files in a class folder are left out with a warning in the log, except images of formats
    that cannot be taken (GIF, TIFF, HEIC, ...) and images in folders below a class folder: those are refused, as
    leaving them out would silently train on less than the user has. Symbolic links are followed.

    Where there is no test folder, `data.test_fraction` of the images is held out, by class.

    Raises:
      InputError: if the folder is missing or not laid out like this, has no or one class, a class without images, or
        test classes that training lacks.
    """
    root = _root(data)
    folders = {split: _read_folder(root, path) for split, path in _split_folders(root).items()}
    _check_classes(root, folders)
    class_names = next(iter(folders.values())).class_names
    drawn = None if "test" in folders else data.test_fraction
    files = [file for folder in folders.values() for file in folder.files]
    fingerprint = _fingerprint(files, drawn)
    return Source(
        name="image_folder",
        version="1.0.0",
        class_names=class_names,
        place=f"data.root is {str(root)!r}",
        splits=_splits(folders, class_names, drawn),
        read=lambda name: (root / name).read_bytes(),
        array_shape=None,
        size_bytes=sum(file.size for file in files),
        fingerprint=fingerprint,
        unchanged=lambda: source(data).fingerprint == fingerprint,
        notes=_left_out(root, folders),
    )


def _left_out(root: Path, folders: Mapping[str, _Folder]) -> tuple[str, ...]:
    """Sentences about what lies in the folders and is not used."""
    others = [name for folder in folders.values() for name in folder.others]
    beside = [name for name in _folder_names(root) if name not in folders] if "train" in folders else []
    counted = "1 file that is no image" if len(others) == 1 else f"{len(others)} files that are no images"
    notes = [f"data.root: left out {counted}: {_some(others)}"] if others else []
    return (*notes, *([f"data.root: only train and test are read, not {_some(beside)}"] if beside else []))


def _root(data: DataConfig) -> Path:
    if data.root is None:
        raise InputError(f"data.root is not given: image_folder needs the folder of the images ({_LAYOUT})")
    root = Path(data.root).expanduser()
    if not root.exists():
        raise InputError(f"data.root is {data.root!r}: there is no such folder")
    if not root.is_dir():
        raise InputError(f"data.root is {data.root!r}: it must be a folder ({_LAYOUT}), not a file")
    return root


def _split_folders(root: Path) -> Mapping[str, Path]:
    """Where each split's class folders lie; "all" if the split is to be drawn."""
    names = _folder_names(root)
    if "train" not in names or _image_names(root / "train"):
        return {"all": root}
    if "test" not in names:
        beside = f"; beside train it has {_some([name for name in names if name != 'train'])}" if len(names) > 1 else ""
        raise InputError(
            f"data.root is {str(root)!r}: it has a folder train but none called test{beside}; "
            "name the folder of held-out images test, or give the folder train itself and a split is drawn from it"
        )
    return {"train": root / "train", "test": root / "test"}


def _read_folder(root: Path, path: Path) -> _Folder:
    stray = _image_names(path)
    if stray:
        raise InputError(f"{str(path)!r} holds images outside any class folder, such as {stray[0]!r}: use {_LAYOUT}")
    class_names = tuple(_folder_names(path))
    if not class_names:
        raise InputError(f"{str(path)!r} holds no class folders: use {_LAYOUT}")
    files, others = [], []
    for class_name in class_names:
        images, rest = _read_class(root, path / class_name)
        files += images
        others += rest
    return _Folder(class_names, tuple(files), tuple(others))


def _read_class(root: Path, path: Path) -> tuple[list[_File], list[str]]:
    """The images of one class, sorted by name, and the names of the files that are none."""
    _check_class_name(path)
    prefix, class_name = path.relative_to(root).as_posix(), path.name
    files, others = [], []
    for entry in _entries(path):
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            _refuse_nested(Path(entry.path))
        elif _is_image(entry.name):
            files.append(_file(entry, name, class_name))
        elif entry.name.lower().endswith(_OTHER_IMAGES):
            raise InputError(f"{entry.path!r} is an image of a format that is not read: convert it to PNG or JPEG")
        else:
            others.append(name)
    if not files:
        raise InputError(f"class folder {str(path)!r} holds no images ({', '.join(SUFFIXES)})")
    return files, others


def _file(entry: os.DirEntry[str], name: str, class_name: str) -> _File:
    try:
        name.encode()
        status = entry.stat()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of {entry.path!r} is not valid UTF-8: rename the file") from error
    except OSError as error:
        raise InputError(f"{entry.path!r} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{entry.path!r} is named like an image and is no file")
    return _File(name, class_name, status.st_size, status.st_mtime_ns)


def _check_class_name(path: Path) -> None:
    # TFDS keeps class names one to a line, without the spaces around them.
    if path.name != path.name.strip() or len(path.name.splitlines()) != 1:
        raise InputError(
            f"class folder {str(path)!r}: its name must not begin or end with a space or hold a line break"
        )


def _refuse_nested(folder: Path) -> None:
    for path, names, files in os.walk(folder):
        names[:] = [name for name in names if not _is_clutter(name)]
        found = [name for name in files if _is_image(name)]
        if found:
            nested = os.path.join(path, found[0])
            raise InputError(f"{nested!r} lies below a class folder, not directly in one: use {_LAYOUT}")


def _check_classes(root: Path, folders: Mapping[str, _Folder]) -> None:
    known = next(iter(folders.values())).class_names
    if len(known) == 1:
        raise InputError(f"data.root is {str(root)!r}: it has one class only ({known[0]!r}), at least 2 are needed")
    unknown = [name for folder in folders.values() for name in folder.class_names if name not in known]
    if unknown:
        raise InputError(f"data.root is {str(root)!r}: test has classes that train lacks: {_some(unknown)}")


def _splits(
    folders: Mapping[str, _Folder], class_names: Sequence[str], fraction: float | None
) -> Mapping[str, SourceSplit]:
    index = {name: label for label, name in enumerate(class_names)}
    if fraction is None:
        return {name: _split(folder.files, index) for name, folder in folders.items()}
    files = folders["all"].files
    mask = held_out([file.id for file in files], [index[file.class_name] for file in files], fraction)
    rows = {"train": np.flatnonzero(~mask), "test": np.flatnonzero(mask)}
    if not len(rows["test"]):
        raise InputError(f"data.test_fraction is {fraction}: no class has an image to spare for testing")
    return {name: _split([files[row] for row in chosen], index) for name, chosen in rows.items()}


def _split(files: Sequence[_File], index: Mapping[str, int]) -> SourceSplit:
    return SourceSplit(tuple(file.id for file in files), tuple(index[file.class_name] for file in files))


def _fingerprint(files: Iterable[_File], fraction: float | None) -> str:
    """Changes whenever a file is added, removed, renamed, or written again, or the drawn split changes."""
    digest = hashlib.sha256(repr(fraction).encode())
    for file in files:
        digest.update(f"\0{file.id}\0{file.size}\0{file.mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, without hidden files and file managers' clutter."""
    try:
        with os.scandir(path) as entries:
            return sorted((entry for entry in entries if not _is_clutter(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _folder_names(path: Path) -> list[str]:
    return [entry.name for entry in _entries(path) if entry.is_dir()]


def _image_names(path: Path) -> list[str]:
    return [entry.name for entry in _entries(path) if not entry.is_dir() and _is_image(entry.name)]


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + rest
