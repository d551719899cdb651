"""A user's own images: one folder per class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepwise_jax.data.source import Source, SourceSplit
from stepwise_jax.data.sources import class_folders
from stepwise_jax.data.sources.class_folders import File, abbreviate
from stepwise_jax.data.splits import draw_test_split
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig

_LAYOUT = "root/train/CLASS/* with root/test/CLASS/*, or root/CLASS/* alone"


@dataclass(frozen=True)
class _Folder:
    """What one folder of class folders holds."""

    class_names: tuple[str, ...]
    files: tuple[File, ...]
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
    fingerprint = class_folders.fingerprint(files, drawn)
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
    beside = [name for name in class_folders.folder_names(root) if name not in folders] if "train" in folders else []
    counted = "1 file that is no image" if len(others) == 1 else f"{len(others)} files that are no images"
    notes = [f"data.root: left out {counted}: {abbreviate(others)}"] if others else []
    return (*notes, *([f"data.root: only train and test are read, not {abbreviate(beside)}"] if beside else []))


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
    names = class_folders.folder_names(root)
    if "train" not in names or class_folders.image_names(root / "train"):
        return {"all": root}
    if "test" not in names:
        others = abbreviate([name for name in names if name != "train"])
        beside = f"; beside train it has {others}" if others else ""
        raise InputError(
            f"data.root is {str(root)!r}: it has a folder train but none called test{beside}; "
            "name the folder of held-out images test, or give the folder train itself and a split is drawn from it"
        )
    return {"train": root / "train", "test": root / "test"}


def _read_folder(root: Path, path: Path) -> _Folder:
    stray = class_folders.image_names(path)
    if stray:
        raise InputError(f"{str(path)!r} holds images outside any class folder, such as {stray[0]!r}: use {_LAYOUT}")
    class_names = tuple(class_folders.folder_names(path))
    if not class_names:
        raise InputError(f"{str(path)!r} holds no class folders: use {_LAYOUT}")
    files, others = [], []
    for class_name in class_names:
        images, rest = class_folders.read_class(root, path / class_name, _LAYOUT)
        files += images
        others += rest
    return _Folder(class_names, tuple(files), tuple(others))


def _check_classes(root: Path, folders: Mapping[str, _Folder]) -> None:
    known = next(iter(folders.values())).class_names
    if len(known) == 1:
        raise InputError(f"data.root is {str(root)!r}: it has one class only ({known[0]!r}), at least 2 are needed")
    unknown = [name for folder in folders.values() for name in folder.class_names if name not in known]
    if unknown:
        raise InputError(f"data.root is {str(root)!r}: test has classes that train lacks: {abbreviate(unknown)}")


def _splits(
    folders: Mapping[str, _Folder], class_names: Sequence[str], fraction: float | None
) -> Mapping[str, SourceSplit]:
    index = {name: label for label, name in enumerate(class_names)}
    if fraction is None:
        return {name: _split(folder.files, index) for name, folder in folders.items()}
    files = folders["all"].files
    mask = draw_test_split([file.id for file in files], [index[file.class_name] for file in files], fraction)
    rows = {"train": np.flatnonzero(~mask), "test": np.flatnonzero(mask)}
    if not len(rows["test"]):
        raise InputError(f"data.test_fraction is {fraction}: no class has an image to spare for testing")
    return {name: _split([files[row] for row in chosen], index) for name, chosen in rows.items()}


def _split(files: Sequence[File], index: Mapping[str, int]) -> SourceSplit:
    return SourceSplit(tuple(file.id for file in files), tuple(index[file.class_name] for file in files))
