"""Opens prepared data sets: ours, and any that TFDS has prepared as array_record."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.source import unreadable_sentence
from stepwise_jax.errors import InputError


def open_folder(name: str, folder: Path) -> Dataset:
    """Open the data set that is prepared in a folder NAME[/CONFIG]/VERSION.

    Raises:
      InputError: if files are missing or damaged, images, labels, or the train or test split are missing, or the files
        are not array_record.
    """
    foreign = _foreign_classes(folder)
    if foreign:
        raise InputError(
            f"data.name is {name!r}: {str(folder)!r} is refused: its features.json names {foreign[0]}, which is not "
            "TFDS's, and opening data must not load code"
        )
    try:
        builder = tfds.builder_from_directory(folder)
        names, shape = _class_names(builder.info), _image_shape(builder.info)
    # Damaged metadata raises what its parser raises: JSON's, protobuf's or TFDS's own errors.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        message = f"cannot be opened: {reason}; remove the folder and prepare it again"
        raise InputError(f"data.name is {name!r}: {str(folder)!r} {message}") from error
    problem = feature_problem(builder.info) or _file_problem(builder.info)
    if problem:
        raise InputError(f"data.name is {name!r}: {str(folder)!r} {problem}")
    return Dataset(name, str(builder.version), names, shape, builder, _test_split(builder.info))


def check_unreadable(dataset: Dataset) -> None:
    """Refuse a data set from which images that cannot be decoded were left out.

    Raises:
      InputError: naming these images.
    """
    names = (dataset.builder.info.metadata or {}).get("unreadable")
    if names:
        raise InputError(
            f"data.name is {dataset.name!r}: {unreadable_sentence(names)}; repair or remove them, or set "
            "data.unreadable to 'skip'"
        )


def _foreign_classes(folder: Path) -> list[str]:
    """The classes outside TFDS that a prepared data set names: TFDS would import their modules."""
    try:
        document = json.loads((folder / "features.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        # Opening the data set reports the problem.
        return []
    return [name for name in _named_classes(document) if not name.startswith("tensorflow_datasets.core.features.")]


def _named_classes(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        # Protobuf's two spellings, and that of older versions.
        for key in ("pythonClassName", "python_class_name", "type"):
            if isinstance(value.get(key), str):
                yield value[key]
        for child in value.values():
            yield from _named_classes(child)
    elif isinstance(value, list):
        for child in value:
            yield from _named_classes(child)


def feature_problem(info: Any) -> str | None:
    """Why the features cannot be used for classification; None if they can."""
    features: dict[str, Any] = dict(info.features.items())
    image, label = features.get("image"), features.get("label")
    is_image = isinstance(image, (tfds.features.Tensor, tfds.features.Image))
    if not is_image or features["image"].np_dtype != np.uint8:
        return f"has no feature 'image' of 8 bits to train on: it has {', '.join(features)}"
    if not isinstance(label, tfds.features.ClassLabel):
        return f"has no feature 'label' of classes to train on: it has {', '.join(features)}"
    shape = features["image"].shape
    if len(shape) != 3 or shape[2] not in (1, 3):
        return f"has images of shape {shape}: it must be height, width and 1 or 3 channels"
    return None


def _file_problem(info: Any) -> str | None:
    """Why the files cannot be read; None if they can."""
    if "train" not in info.splits or _test_split(info) not in info.splits:
        return f"has the splits {', '.join(info.splits) or '(none)'}: train and test (or validation) are needed"
    if info.file_format.value != "array_record":
        return f"holds {info.file_format.value} files: prepare it with file_format='array_record'"
    missing = [path.name for split in info.splits.values() for path in split.filepaths if not path.exists()]
    return f"lacks {missing[0]}: remove the folder and prepare it again" if missing else None


def _test_split(info: Any) -> str:
    # TFDS stores the test images of some data sets, such as Food-101, under the name validation.
    return "validation" if "validation" in info.splits and "test" not in info.splits else "test"


def _class_names(info: Any) -> tuple[str, ...]:
    names = (info.metadata or {}).get("class_names") or getattr(dict(info.features.items()).get("label"), "names", ())
    return tuple(names)


def _image_shape(info: Any) -> tuple[int, int, int] | None:
    features: dict[str, Any] = dict(info.features.items())
    shape: Any = (info.metadata or {}).get("image_shape") or getattr(features.get("image"), "shape", (None,))
    return None if None in shape else (int(shape[0]), int(shape[1]), int(shape[2]))
