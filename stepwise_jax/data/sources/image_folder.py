"""The user's own images, in one folder per class."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepwise_jax.data.prepared import locating
from stepwise_jax.data.progress import ProgressCallback, ProgressMeter
from stepwise_jax.data.source import Source, SourceSplit
from stepwise_jax.data.sources import class_folders, content_hashes
from stepwise_jax.data.sources.class_folders import ImageFile, quote_names
from stepwise_jax.data.splits import draw_test_split
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.runtime.threads import map_ahead

_TEST_NAMES = ("validation", "valid", "val")
"""Folders that hold the test images where none is called test."""

_LAYOUT = "root/train/CLASS/* with root/test/CLASS/*, or root/CLASS/* alone"


@dataclass(frozen=True)
class _Folder:
    """The contents of one folder of class folders."""

    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    others: tuple[str, ...]


class _Contents:
    """What the files of a root are beyond their names: each is asked for once, when somebody needs it."""

    def __init__(self, root: Path, files: Sequence[ImageFile], settings: str, folder: Path):
        self._root, self._files, self._settings, self._folder = root, files, settings, folder
        self._status: np.ndarray | None = None
        self._fingerprint: str | None = None

    def status(self, progress: ProgressCallback = lambda *_: None) -> np.ndarray:
        """Sizes and times, as `class_folders.read_status`. A plan of a million files needs their names alone."""
        if self._status is None:
            self._status = _read_status(self._root, self._files, progress)
        return self._status

    def size(self) -> int:
        """Bytes of all files."""
        return int(self.status()[:, 0].sum())

    def fingerprint(self, progress: ProgressCallback) -> str:
        """The hash of `content_hashes.fingerprint`."""
        if self._fingerprint is None:
            self._fingerprint = content_hashes.fingerprint(
                self._root, self._files, self.status(progress), self._settings, self._folder, progress
            )
        return self._fingerprint

    def unchanged(self) -> bool:
        """Whether no file has another status by now."""
        return np.array_equal(_read_status(self._root, self._files, lambda *_: None), self.status())


def source(data: DataConfig, progress: ProgressCallback) -> Source:
    """The images below `data.root`: root/train/CLASS/* and root/test/CLASS/*, or root/CLASS/* alone.

    Images end in one of `images.SUFFIXES`, in any letter case; hidden files and file managers' clutter are ignored.
    Other files in a class folder are left out with a warning. Images of formats that are not read (HEIC, ...) raise an
    error unless data.unreadable is "skip", and images in subfolders of a class folder always do, since leaving them out
    would silently train on fewer images than the user has. Symbolic links are followed. Where there is no test folder,
    one called validation, valid or val takes its place; where there is no train folder, `data.test_fraction` of the
    images of each class is held out.

    Raises:
      InputError: for another layout, fewer than two classes, a class without images, or one that only test has.
    """
    root = _root(data)
    places, unsupported, meter = _split_folders(root), [], _scan_meter(progress)
    folders = {split: _read_folder(root, path, unsupported, meter) for split, path in places.items()}
    scanned = [file for folder in folders.values() for file in folder.files]
    if data.unreadable == "refuse":
        class_folders.refuse_unsupported(root, unsupported, ", or set data.unreadable to 'skip'")
    folders, notes = _join_spellings(folders)
    _check_classes(root, folders)
    class_names = next(iter(folders.values())).class_names
    test_fraction = None if "test" in folders else data.test_fraction
    files = [file for folder in folders.values() for file in folder.files]
    remembered = locating.dataset_folder("image_folder", locating.data_dir(data))
    contents = _Contents(root, files, repr(test_fraction), remembered)
    return Source(
        name="image_folder",
        version="1.0.0",
        class_names=class_names,
        origin=f"data.root is {str(root)!r}",
        splits=_splits(folders, class_names, test_fraction),
        read=lambda name: (root / name).read_bytes(),
        array_shape=None,
        size_bytes=contents.size,
        find_fingerprint=contents.fingerprint,
        unchanged=lambda: _all_files(data) == scanned and contents.unchanged(),
        skip_unreadable=data.unreadable == "skip",
        notes=(*notes, *_left_out_notes(root, places, folders, unsupported)),
    )


def _all_files(data: DataConfig) -> list[ImageFile]:
    root, meter = _root(data), _scan_meter(lambda *_: None)
    return [file for path in _split_folders(root).values() for file in _read_folder(root, path, [], meter).files]


def _scan_meter(progress: ProgressCallback) -> ProgressMeter:
    return ProgressMeter(progress, 0, "image_folder: scanning the files")


def _read_status(root: Path, files: Sequence[ImageFile], progress: ProgressCallback) -> np.ndarray:
    return class_folders.read_status(root, files, ProgressMeter(progress, 0, "image_folder: looking for changed files"))


def _join_spellings(folders: Mapping[str, _Folder]) -> tuple[Mapping[str, _Folder], list[str]]:
    """Make folders whose names are one text in Unicode's two spellings (NFC, NFD) one class, under the first name."""
    spellings: dict[str, dict[str, None]] = {}
    for folder in folders.values():
        for name in folder.class_names:
            spellings.setdefault(unicodedata.normalize("NFC", name), {})[name] = None
    if all(len(names) == 1 for names in spellings.values()):
        return folders, []
    first = {name: next(iter(names)) for names in spellings.values() for name in names}
    notes = [
        f"data.root: {' and '.join(map(ascii, names))} are one class, whose name is spelled in two ways (NFC and NFD)"
        for names in spellings.values()
        if len(names) > 1
    ]
    joined = {
        split: _Folder(
            tuple(dict.fromkeys(first[name] for name in folder.class_names)),
            tuple(file._replace(class_name=first[file.class_name]) for file in folder.files),
            folder.others,
        )
        for split, folder in folders.items()
    }
    return joined, notes


def _left_out_notes(
    root: Path, places: Mapping[str, Path], folders: Mapping[str, _Folder], unsupported: Sequence[str]
) -> tuple[str, ...]:
    """Warnings about files and folders that are not used, and about the folder that serves as test."""
    notes = []
    others = [name for folder in folders.values() for name in folder.others]
    if others:
        count = "1 file that is not an image" if len(others) == 1 else f"{len(others)} files that are not images"
        notes.append(f"data.root: left out {count}: {quote_names(others)}")
    if unsupported:
        count = "1 image" if len(unsupported) == 1 else f"{len(unsupported)} images"
        notes.append(f"data.root: left out {count} of a format that is not read: {quote_names(unsupported)}")
    if "train" not in places:
        return tuple(notes)
    test = places["test"].name
    if test != "test":
        notes.append(f"data.root: the images of {test!r} are the test images")
    unused = [name for name in class_folders.folder_names(root) if name not in ("train", test)]
    if unused:
        notes.append(f"data.root: only train and {test} are read, not {quote_names(unused)}")
    return tuple(notes)


def _root(data: DataConfig) -> Path:
    if not data.root:
        raise InputError(
            f"data.root is not set: image_folder needs the folder of the images ({_LAYOUT}); give it as --data.root "
            "FOLDER, or to prepare as --from FOLDER"
        )
    root = locating.local_path("data.root", data.root)
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
    others = [name for name in _TEST_NAMES if name in names]
    if "test" in names and not (others and _is_unlabelled(root / "test")):
        return {"train": root / "train", "test": root / "test"}
    if len(others) == 1:
        return {"train": root / "train", "test": root / others[0]}
    found = quote_names([name for name in names if name != "train"])
    raise InputError(
        f"data.root is {str(root)!r}: it has a folder train but none called test{found and '; besides train it has '}"
        f"{found}; name the folder of held-out images test, or set data.root to the folder train itself to draw a test "
        "split from it"
    )


def _is_unlabelled(path: Path) -> bool:
    return not class_folders.folder_names(path) and bool(class_folders.image_names(path))


def _read_folder(root: Path, path: Path, unsupported: list[str], meter: ProgressMeter) -> _Folder:
    stray = class_folders.image_names(path)
    if stray:
        raise InputError(
            f"{str(path)!r} has images outside any class folder, such as {stray[0]!r}: use {_LAYOUT}"
            f"{class_folders.suggestion(root)}"
        )
    class_names = tuple(class_folders.folder_names(path))
    if not class_names:
        raise InputError(f"{str(path)!r} has no class folders: use {_LAYOUT}")
    files: list[ImageFile] = []
    others: list[str] = []
    # A network's file system answers late: other folders are read meanwhile.
    for future in map_ahead(
        lambda name: class_folders.read_class_folder(root, path / name, _LAYOUT, status=False), class_names
    ):
        try:
            found = meter.wait_for(future)
        except class_folders.NestedImagesError as error:
            raise InputError(f"{error}{class_folders.suggestion(root)}") from error
        files += found.files
        meter.advance(len(found.files))
        others += found.others
        unsupported += found.unsupported
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
    return {
        name: SourceSplit(tuple(files[row].id for row in members), tuple(labels[row] for row in members))
        for name, members in ((name, members.tolist()) for name, members in rows.items())
    }
