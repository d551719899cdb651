"""Birdsnap (Berg et al., 2014): photographs of 500 species of birds, split by the authors' list of test images.

Only the lists and links to the photographs are published, and many links are dead: nobody has all the images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.data.source import Source
from stepwise_jax.data.sources import class_folders
from stepwise_jax.data.sources.class_folders import ImageFile, quote_names
from stepwise_jax.errors import InputError

_TEST, _ALL, _SPECIES = "test_images.txt", "images.txt", "species.txt"

# get_birdsnap.py, which comes with the lists, writes images to download/images/SPECIES.
_IMAGE_FOLDERS = ("download/images", "images")

_LAYOUT = "images/SPECIES/* beside test_images.txt"


def source(name: str, path: Path, scratch: Path, progress: ProgressCallback) -> Source:
    """The available images, unchanged; ids are those of the lists ("Coopers_Hawk/0561.jpg").

    Classes are the species of species.txt, in its order, if that list exists, else the folder names. The images in
    test_images.txt are the test split. If images.txt exists too, images that it does not name are left out.

    Args:
      name: "birdsnap".
      path: the folder of the lists, or its parent.
      scratch: unused.
      progress: unused.

    Raises:
      InputError: if there is no list of test images, or the folders or images are not usable.
    """
    del scratch, progress
    lists = _lists(path)
    images = next((lists / below for below in _IMAGE_FOLDERS if (lists / below).is_dir()), lists)
    files, others = _files(images)
    test_ids, listed = set(_column(lists / _TEST, "path")), None
    if (lists / _ALL).is_file():
        listed = {*_column(lists / _ALL, "path"), *test_ids}
    kept = [file for file in files if listed is None or file.id in listed]
    class_names = _class_names(lists, kept)
    parts = {
        split: [file for file in kept if (file.id in test_ids) == (split == "test")] for split in ("train", "test")
    }
    status = class_folders.hash_status(files)
    return Source(
        name=name,
        version="1.0.0",
        class_names=tuple(class_names),
        origin=repr(str(path)),
        splits={split: class_folders.split(part, class_names) for split, part in parts.items()},
        read=lambda example: (images / example).read_bytes(),
        array_shape=None,
        size_bytes=sum(file.size for file in kept),
        unchanged=lambda: class_folders.hash_status(_files(images)[0]) == status,
        notes=tuple(_notes(files, others, test_ids, listed)),
    )


def _lists(path: Path) -> Path:
    for folder in (path, path / "birdsnap"):
        if (folder / _TEST).is_file():
            return folder
    raise InputError(f"{str(path)!r} is not birdsnap: it must hold {_TEST}, the authors' list of test images")


def _files(images: Path) -> tuple[list[ImageFile], list[str]]:
    """All images, and the names of the other files."""
    files: list[ImageFile] = []
    others: list[str] = []
    unsupported: list[str] = []
    for folder in class_folders.folder_names(images):
        # The folder of a species without any downloadable image stays empty.
        if class_folders.image_names(images / folder):
            found = class_folders.read_class_folder(images, images / folder, _LAYOUT)
            files += found.files
            others += found.others
            unsupported += found.unsupported
    class_folders.refuse_unsupported(images, unsupported)
    if not files:
        raise InputError(f"{str(images)!r} holds no images: use {_LAYOUT}")
    return files, others


def _class_names(lists: Path, files: Sequence[ImageFile]) -> list[str]:
    folders = sorted({file.class_name for file in files})
    if not (lists / _SPECIES).is_file():
        return folders
    species = _column(lists / _SPECIES, "dir")
    unknown = [folder for folder in folders if folder not in species]
    if unknown:
        raise InputError(f"{str(lists / _SPECIES)!r} does not list the folders {quote_names(unknown)}")
    return species


def _column(path: Path, name: str) -> list[str]:
    """A column of a tab-separated list whose first line names the columns."""
    try:
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    if not lines or name not in lines[0]:
        raise InputError(f"{str(path)!r} must start with a line of column names that includes {name!r}")
    index = lines[0].index(name)
    short = [line for line in lines if len(line) <= index]
    if short:
        raise InputError(f"{str(path)!r}: the line {' '.join(short[0])!r} has no column {name!r}")
    return [line[index] for line in lines[1:]]


def _notes(files: Sequence[ImageFile], others: Sequence[str], test_ids: set[str], listed: set[str] | None) -> list[str]:
    """Warnings about images that the lists name and that are missing, and files that are not used."""
    available = {file.id for file in files}
    ids_by_split: Mapping[str, set[str]] = {"test": test_ids, "training": (listed or set()) - test_ids}
    notes = [
        f"birdsnap: {len(names - available):,} of the {len(names):,} {split} images that the lists name are missing"
        for split, names in ids_by_split.items()
        if names - available
    ]
    unlisted = sorted(available - listed) if listed is not None else []
    left_out = [*others, *unlisted]
    if left_out:
        notes.append(f"birdsnap: left out files that are not images or are in no list: {quote_names(left_out)}")
    return notes
