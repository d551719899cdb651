"""Birdsnap (Berg et al., 2014): photographs of 500 species of birds, split by the authors' list of test images.

What is published are the lists, and links to photographs of which many are gone: nobody has all the images.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from stepwise_jax.data.progress import Progress
from stepwise_jax.data.source import Source, SourceSplit
from stepwise_jax.data.sources import class_folders
from stepwise_jax.data.sources.class_folders import File, abbreviate
from stepwise_jax.errors import InputError

_TEST, _ALL, _SPECIES = "test_images.txt", "images.txt", "species.txt"

# get_birdsnap.py, which comes with the lists, puts images into download/images/SPECIES.
_IMAGES = ("download/images", "images")

_LAYOUT = "images/SPECIES/* beside test_images.txt"


def source(name: str, path: Path, scratch: Path, progress: Progress) -> Source:
    """The images that are there, as they are; ids are the lists' ("Coopers_Hawk/0561.jpg").

    Classes are the species of species.txt in its order if that list is there, else the folders' names. Images are for
    testing if test_images.txt names them. Where images.txt is there too, those that it does not name are left out.

    Args:
      name: "birdsnap".
      path: the folder of the lists, or the one above it.
      scratch: not used.
      progress: not used.

    Raises:
      InputError: if there is no list of test images, or folders or images are not as they must be.
    """
    del scratch, progress
    lists = _lists(path)
    images = next((lists / below for below in _IMAGES if (lists / below).is_dir()), lists)
    files, others = _files(images)
    tested, listed = set(_column(lists / _TEST, "path")), None
    if (lists / _ALL).is_file():
        listed = {*_column(lists / _ALL, "path"), *tested}
    kept = [file for file in files if listed is None or file.id in listed]
    class_names = _class_names(lists, kept)
    parts = {split: [file for file in kept if (file.id in tested) == (split == "test")] for split in ("train", "test")}
    fingerprint = class_folders.fingerprint(files, None)
    return Source(
        name=name,
        version="1.0.0",
        class_names=tuple(class_names),
        place=repr(str(path)),
        splits={split: _split(part, class_names) for split, part in parts.items()},
        read=lambda example: (images / example).read_bytes(),
        array_shape=None,
        size_bytes=sum(file.size for file in kept),
        unchanged=lambda: class_folders.fingerprint(_files(images)[0], None) == fingerprint,
        notes=tuple(_notes(files, others, tested, listed)),
    )


def _lists(path: Path) -> Path:
    for folder in (path, path / "birdsnap"):
        if (folder / _TEST).is_file():
            return folder
    raise InputError(f"{str(path)!r} is not birdsnap: it must hold {_TEST}, the authors' list of test images")


def _files(images: Path) -> tuple[list[File], list[str]]:
    """All images, and the names of the files that are none."""
    files, others = [], []
    for folder in class_folders.folder_names(images):
        # Those of images that could not be had stay empty.
        if class_folders.image_names(images / folder):
            found, rest = class_folders.read_class(images, images / folder, _LAYOUT)
            files += found
            others += rest
    if not files:
        raise InputError(f"{str(images)!r} holds no images: use {_LAYOUT}")
    return files, others


def _class_names(lists: Path, files: Sequence[File]) -> list[str]:
    folders = sorted({file.class_name for file in files})
    if not (lists / _SPECIES).is_file():
        return folders
    species = _column(lists / _SPECIES, "dir")
    unknown = [folder for folder in folders if folder not in species]
    if unknown:
        raise InputError(f"{str(lists / _SPECIES)!r} does not know the folders {abbreviate(unknown)}")
    return species


def _split(files: Sequence[File], class_names: Sequence[str]) -> SourceSplit:
    index = {name: label for label, name in enumerate(class_names)}
    return SourceSplit(tuple(file.id for file in files), tuple(index[file.class_name] for file in files))


def _column(path: Path, name: str) -> list[str]:
    """A column of a list whose fields are parted by tabs, and whose first line names them."""
    try:
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    if not lines or name not in lines[0]:
        raise InputError(f"{str(path)!r} must begin with a line of its fields' names, {name!r} among them")
    place = lines[0].index(name)
    short = [line for line in lines if len(line) <= place]
    if short:
        raise InputError(f"{str(path)!r}: the line {' '.join(short[0])!r} has no field {name!r}")
    return [line[place] for line in lines[1:]]


def _notes(files: Sequence[File], others: Sequence[str], tested: set[str], listed: set[str] | None) -> list[str]:
    """Sentences about what the lists name and is not there, and what is there and not taken."""
    there = {file.id for file in files}
    named: Mapping[str, set[str]] = {"test": tested, "training": (listed or set()) - tested}
    notes = [
        f"birdsnap: {len(names - there):,} of the {len(names):,} {split} images that the lists name are not there"
        for split, names in named.items()
        if names - there
    ]
    unlisted = sorted(there - listed) if listed is not None else []
    left = [*others, *unlisted]
    return [*notes, *([f"birdsnap: left out what is no image or in no list: {abbreviate(left)}"] if left else [])]
