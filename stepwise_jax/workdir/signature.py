"""The input and output of a trained network, stored in the workdir so that it can be used without its data set."""

import errno
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stepwise_jax.errors import InputError
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.workdir.files import CONFIG, PREPROCESSING
from stepwise_jax.workdir.json_files import read_json, write_json


class Signature(NamedTuple):
    """The input and the output of a network that was trained in a workdir."""

    preprocessing: Preprocessing
    image_shape: tuple[int, int, int]
    """Height, width and channels (1 or 3) of the images as stored; the device scales them to `image_size`."""
    classes: tuple[str, ...]
    """Names, in the order of the labels."""
    dataset: str
    """As in `data.name`."""


def write_signature(folder: Path, signature: Signature) -> None:
    """Write `preprocessing.json` into a workdir, unless it exists: a resumed run keeps its first signature.

    A folder that is read-only stays as it is: only `evaluate` comes here with one.

    Raises:
      InputError: if the file says something else, or is damaged.
    """
    path = folder / PREPROCESSING
    if path.exists():
        _compare(read_signature(folder), signature, path)
        return
    preprocessing, shape = signature.preprocessing, signature.image_shape
    document = {
        "image_size": preprocessing.image_size,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "channels": shape[2],
        "stored_size": shape[:2],
        "classes": signature.classes,
        "dataset": signature.dataset,
    }
    try:
        write_json(path, document)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise


def _compare(recorded: Signature, signature: Signature, path: Path) -> None:
    """Refuse a recorded signature that is not this one; its mean and deviation may differ by how they are summed."""
    theirs, ours = recorded.preprocessing, signature.preprocessing
    close = np.allclose((theirs.mean, theirs.std), (ours.mean, ours.std), rtol=1e-4, atol=1e-6)
    same = (theirs.image_size, *recorded[1:]) == (ours.image_size, *signature[1:])
    if not (close and same):
        raise InputError(f"{path} does not describe the images of this run: it or {CONFIG} is damaged")


def read_signature(folder: Path) -> Signature:
    """Read the signature that `write_signature` wrote.

    Raises:
      InputError: if it is missing, as in a run of an earlier version, or damaged.
    """
    path = folder / PREPROCESSING
    if not path.exists():
        raise InputError(
            f"{folder} lacks {PREPROCESSING}, because an earlier version trained it: "
            f"`python launch.py evaluate {folder}` adds the file"
        )
    try:
        return _parse(read_json(path))
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path} is damaged: remove it, and `python launch.py evaluate` writes it again") from error


def _parse(document: Any) -> Signature:
    size, channels = int(document["image_size"]), int(document["channels"])
    mean, std = (tuple(float(value) for value in document[name]) for name in ("mean", "std"))
    height, width = (int(side) for side in document["stored_size"])
    classes = document["classes"]
    names = isinstance(classes, list) and len(classes) > 0 and all(isinstance(name, str) for name in classes)
    if not names or {len(mean), len(std)} != {3} or channels not in (1, 3) or min(size, height, width, *std) <= 0:
        raise ValueError(document)
    return Signature(Preprocessing(size, mean, std), (height, width, channels), tuple(classes), document["dataset"])
