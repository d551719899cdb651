"""Faces with and without a mask: the paper's third data set, merged from three public data sets."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.data.source import Source, SourceSplit
from stepwise_jax.data.sources import class_folders
from stepwise_jax.data.sources.catalog import PUBLISHED_SIZES
from stepwise_jax.data.sources.class_folders import ImageFile, quote_names
from stepwise_jax.data.splits import draw_test_split
from stepwise_jax.errors import InputError

CLASS_NAMES = ("with_mask", "without_mask")

_SPELLINGS = {"withmask": 0, "mask": 0, "masked": 0, "withoutmask": 1, "nomask": 1, "unmasked": 1}

_SPLITS = ("train", "test")

_LAYOUT = "with_mask/* and without_mask/*, below train/ and test/, below the name of a source, or alone"

# The share of all images that the paper held out.
_TEST_FRACTION = PUBLISHED_SIZES["face_mask"].test / (
    PUBLISHED_SIZES["face_mask"].train + PUBLISHED_SIZES["face_mask"].test
)


def source(name: str, path: Path, scratch: Path, progress: ProgressCallback) -> Source:
    """All images in folders of either class below `path`, unchanged; ids are their paths below it.

    A folder belongs to a class if its name is the class's up to letter case and separators (WithMask, without-mask), or
    mask, masked, no_mask, unmasked. Sources are merged. Images below folders called train and test form those splits.
    Without such folders, 639 of 3,148 images are held out, each class in proportion, depending on their names alone.

    Args:
      name: "face_mask".
      path: the folder.
      scratch: unused.
      progress: unused.

    Raises:
      InputError: if a class has no images, images are in other folders, or only some are below train or test.
    """
    del scratch, progress
    files, others = _files(path)
    labels = [_label(file.class_name) for file in files]
    missing = [class_name for label, class_name in enumerate(CLASS_NAMES) if label not in labels]
    if missing:
        raise InputError(f"{str(path)!r} has no images in folders called {missing[0]}: use {_LAYOUT}")
    status = class_folders.hash_status(files)
    return Source(
        name=name,
        version="1.0.0",
        class_names=CLASS_NAMES,
        origin=repr(str(path)),
        splits=_splits(path, [file.id for file in files], [label for label in labels if label is not None]),
        read=lambda example: (path / example).read_bytes(),
        array_shape=None,
        size_bytes=sum(file.size for file in files),
        unchanged=lambda: class_folders.hash_status(_files(path)[0]) == status,
        notes=(f"face_mask: left out files that are not images: {quote_names(others)}",) if others else (),
    )


def _label(folder: str) -> int | None:
    return _SPELLINGS.get(re.sub(r"[\W_]", "", folder.lower()))


def _files(root: Path) -> tuple[list[ImageFile], list[str]]:
    """All images in folders of a class, and the names of the other files in these folders."""
    if not root.is_dir():
        raise InputError(f"{str(root)!r} is not a folder: use {_LAYOUT}")
    files: list[ImageFile] = []
    others: list[str] = []
    unsupported: list[str] = []
    for path, folders, _ in os.walk(root, followlinks=True):
        folders[:] = class_folders.folder_names(Path(path))
        if Path(path) != root and _label(Path(path).name) is not None:
            folders.clear()
            found = class_folders.read_class_folder(root, Path(path), _LAYOUT)
            files += found.files
            others += found.others
            unsupported += found.unsupported
        elif stray := class_folders.image_names(Path(path)):
            raise InputError(f"{os.path.join(path, stray[0])!r} is in a folder of neither class: use {_LAYOUT}")
    class_folders.refuse_unsupported(root, unsupported)
    return sorted(files), others


def _splits(root: Path, ids: Sequence[str], labels: Sequence[int]) -> Mapping[str, SourceSplit]:
    assigned = [next((part for part in example.split("/")[:-1] if part in _SPLITS), None) for example in ids]
    if None in assigned and any(assigned):
        unassigned = [example for example, split in zip(ids, assigned, strict=True) if split is None]
        raise InputError(
            f"{str(root)!r}: some images are below train or test, and some are not: {quote_names(unassigned)}"
        )
    if None in assigned:
        assigned = [_SPLITS[int(is_test)] for is_test in draw_test_split(ids, labels, _TEST_FRACTION)]
    rows = {name: [row for row, split in enumerate(assigned) if split == name] for name in _SPLITS}
    return {
        name: SourceSplit(tuple(ids[row] for row in members), tuple(labels[row] for row in members))
        for name, members in rows.items()
    }
