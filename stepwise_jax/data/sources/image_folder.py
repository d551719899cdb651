"""The user's own images, in one folder per class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepwise_jax.data.source import Source, SourceSplit
from stepwise_jax.data.sources import class_folders
from stepwise_jax.data.sources.class_folders import ImageFile, quote_names
from stepwise_jax.data.splits import draw_test_split
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig

_LAYOUT = "root/train/CLASS/* with root/test/CLASS/*, or root/CLASS/* alone"


@dataclass(frozen=True)
class _Folder:
    """The contents of one folder of class folders."""

    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    others: tuple[str, ...]


def source(data: DataConfig) -> Source:
    """The images below `data.root`: root/train/CLASS/* and root/test/CLASS/*, or root/CLASS/* alone.

    Images end in .jpg, .jpeg, .png, .webp or .bmp, in any letter case; hidden files and file managers' clutter are
    ignored. Other files in a class folder are left out with a warning in the log, except images of unsupported formats
    (GIF, TIFF, HEIC, ...) and images in subfolders of a class folder. Those raise an error, since leaving them out
    would silently train on fewer images than the user has. Symbolic links are followed.

    Without a test folder, `data.test_fraction` of the images of each class is held out.

    Raises:
      InputError: if the folder is missing or has another layout, fewer than two classes, a class without images, or
        test classes that are missing in training.
    """
    root = _root(data)
    folders = {split: _read_folder(root, path) for split, path in _split_folders(root).items()}
    _check_classes(root, folders)
    class_names = next(iter(folders.values())).class_names
    test_fraction = None if "test" in folders else data.test_fraction
    files = [file for folder in folders.values() for file in folder.files]
    fingerprint = class_folders.fingerprint(files, test_fraction)
    return Source(
        name="image_folder",
        version="1.0.0",
        class_names=class_names,
        origin=f"data.root is {str(root)!r}",
        splits=_splits(folders, class_names, test_fraction),
        read=lambda name: (root / name).read_bytes(),
        array_shape=None,
        size_bytes=sum(file.size for file in files),
        fingerprint=fingerprint,
        unchanged=lambda: source(data).fingerprint == fingerprint,
        notes=_left_out_notes(root, folders),
    )


def _left_out_notes(root: Path, folders: Mapping[str, _Folder]) -> tuple[str, ...]:
    """Warnings about files and folders that are not used."""
    notes = []
    others = [name for folder in folders.values() for name in folder.others]
    if others:
        count = "1 file that is not an image" if len(others) == 1 else f"{len(others)} files that are not images"
        notes.append(f"data.root: left out {count}: {quote_names(others)}")
    unused = [name for name in class_folders.folder_names(root) if name not in folders] if "train" in folders else []
    if unused:
        notes.append(f"data.root: only train and test are read, not {quote_names(unused)}")
    return tuple(notes)


def _root(data: DataConfig) -> Path:
    if data.root is None:
        raise InputError(f"data.root is not set: image_folder needs the folder of the images ({_LAYOUT})")
    root = Path(data.root).expanduser()
    if not root.exists():
        raise InputError(f"data.root is {data.root!r}: there is no such folder")
    if not root.is_dir():
        raise InputError(f"data.root is {data.root!r}: it must be a folder ({_LAYOUT}), not a file")
    return root


def _split_folders(root: Path) -> Mapping[str, Path]:
    """The folder of each split's class folders; "all" if the test split is drawn from all images."""
    names = class_folders.folder_names(root)
    if "train" not in names or class_folders.image_names(root / "train"):
        return {"all": root}
    if "test" not in names:
        others = quote_names([name for name in names if name != "train"])
        hint = f"; besides train it has {others}" if others else ""
        raise InputError(
            f"data.root is {str(root)!r}: it has a folder train but none called test{hint}; "
            "name the folder of held-out images test, or set data.root to the folder train itself to draw a test split "
            "from it"
        )
    return {"train": root / "train", "test": root / "test"}


def _read_folder(root: Path, path: Path) -> _Folder:
    stray = class_folders.image_names(path)
    if stray:
        raise InputError(f"{str(path)!r} has images outside any class folder, such as {stray[0]!r}: use {_LAYOUT}")
    class_names = tuple(class_folders.folder_names(path))
    if not class_names:
        raise InputError(f"{str(path)!r} has no class folders: use {_LAYOUT}")
    files, others = [], []
    for class_name in class_names:
        images, rest = class_folders.read_class_folder(root, path / class_name, _LAYOUT)
        files += images
        others += rest
    return _Folder(class_names, tuple(files), tuple(others))


def _check_classes(root: Path, folders: Mapping[str, _Folder]) -> None:
    known = next(iter(folders.values())).class_names
    if len(known) == 1:
        raise InputError(f"data.root is {str(root)!r}: it has only one class ({known[0]!r}), and at least 2 are needed")
    unknown = [name for folder in folders.values() for name in folder.class_names if name not in known]
    if unknown:
        raise InputError(
            f"data.root is {str(root)!r}: test has classes that are missing in train: {quote_names(unknown)}"
        )


def _splits(
    folders: Mapping[str, _Folder], class_names: Sequence[str], fraction: float | None
) -> Mapping[str, SourceSplit]:
    if fraction is None:
        return {name: class_folders.split(folder.files, class_names) for name, folder in folders.items()}
    files = folders["all"].files
    index = {name: label for label, name in enumerate(class_names)}
    labels = [index[file.class_name] for file in files]
    mask = draw_test_split([file.id for file in files], labels, fraction)
    rows = {"train": np.flatnonzero(~mask), "test": np.flatnonzero(mask)}
    if not len(rows["test"]):
        raise InputError(f"data.test_fraction is {fraction}: no class has an image to spare for testing")
    return {name: class_folders.split([files[row] for row in members], class_names) for name, members in rows.items()}
