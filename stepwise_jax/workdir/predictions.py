"""A run's `predictions.npz` and `samples.npz`: all test predictions, and a few test images to show."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stepwise_jax.data import images
from stepwise_jax.errors import InputError
from stepwise_jax.formatting import replace_unprintable
from stepwise_jax.runtime.files import atomic_write
from stepwise_jax.workdir.files import PREDICTIONS, SAMPLES, open_file


@dataclass(frozen=True)
class Sample:
    """A test image with its prediction."""

    image: np.ndarray
    """uint8 [H, W, C]."""
    label: int
    predicted: int
    probability: float
    """Of the predicted class."""
    id: str
    """Of the image: its file, for data sets of files."""


@dataclass(frozen=True)
class Predictions:
    """All predictions of one run."""

    labels: np.ndarray
    """int [N]."""
    predicted: np.ndarray
    """int [N], the most probable class."""
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """The probability of the predicted class, float [N]; empty where it is unknown."""
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.str_))
    """Of the images: their files, for data sets of files; str [N], empty where they are unknown."""

    def confusion_matrix(self) -> np.ndarray:
        """How often class i was taken for class j: int [C, C]."""
        counts = np.zeros((len(self.classes), len(self.classes)), int)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts

    def class_accuracy(self) -> np.ndarray:
        """Share of each class's test images that are predicted correctly, float [C]; NaN for a class without images."""
        counts = self.confusion_matrix()
        totals = counts.sum(1)
        return np.divide(np.diag(counts), totals, out=np.full(len(totals), np.nan), where=totals > 0)


def read_predictions(folder: Path) -> Predictions | None:
    """Read the predictions of a run; None if it has none yet.

    Raises:
      InputError: for a damaged file.
    """
    path = folder / PREDICTIONS
    if not path.exists():
        return None
    stored = _load_arrays(path, ("labels", "probabilities"))
    labels, probabilities = stored["labels"], stored["probabilities"]
    _require(probabilities.ndim == 2 and probabilities.shape[1] > 0, path, "probabilities are not a matrix")
    _require(_are_indices(labels, probabilities.shape[1]), path, "a label is not one of its classes")
    _require(labels.shape == probabilities.shape[:1], path, "labels and probabilities differ in number")
    names = stored["classes"] if "classes" in stored else np.arange(probabilities.shape[1])
    _require(names.shape == probabilities.shape[1:], path, "it does not have one name for each class")
    classes = tuple(replace_unprintable(str(name)) for name in names.tolist())
    ids = stored.get("ids", np.arange(len(labels))).astype(np.str_)
    _require(ids.shape == labels.shape, path, "ids and labels differ in number")
    samples = _samples(folder / SAMPLES, labels, probabilities, ids)
    return Predictions(labels, probabilities.argmax(1), classes, samples, probabilities.max(1), ids)


def _samples(path: Path, labels: np.ndarray, probabilities: np.ndarray, ids: np.ndarray) -> tuple[Sample, ...]:
    if not path.exists():
        return ()
    stored = _load_arrays(path, ("rows", "images"))
    rows, images = stored["rows"], stored["images"]
    _require(_are_indices(rows, len(labels)), path, "its images belong to other predictions")
    drawable = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3) and 0 not in images.shape
    _require(drawable or not len(rows), path, "its images are not uint8 [K, H, W, 1 or 3]")
    _require(len(rows) == len(images), path, "rows and images differ in number")
    return tuple(
        Sample(image, int(labels[row]), int(scores.argmax()), float(scores.max()), replace_unprintable(str(ids[row])))
        for row, image in zip(rows.tolist(), images, strict=True)
        for scores in [probabilities[row]]
    )


def _load_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; raises an `InputError` if one of `names` is missing."""
    try:
        # Opened here because NumPy does not close a file that it opened itself and that is no archive.
        with open_file(path) as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    # NumPy raises all of these for files that are cut short, not .npz archives, or damaged inside.
    except (OSError, ValueError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged: its arrays cannot be read ({error})") from error
    for name in names:
        _require(name in arrays, path, f"it has no {name}")
    return arrays


def _are_indices(numbers: np.ndarray, count: int) -> bool:
    """Whether this is a vector of integers from 0 to `count` - 1."""
    integers = numbers.ndim == 1 and np.issubdtype(numbers.dtype, np.integer)
    return integers and bool(np.all((numbers >= 0) & (numbers < count)))


def _require(condition: bool, path: Path, fault: str) -> None:
    if not condition:
        raise InputError(f"{path} is damaged: {fault}")


def most_confused(predictions: Predictions, count: int) -> Sequence[tuple[int, int, int]]:
    """The most frequent errors as (label, predicted class, count)."""
    counts = predictions.confusion_matrix()
    np.fill_diagonal(counts, 0)
    largest = np.argsort(-counts, axis=None, kind="stable")[:count]
    errors = [(*divmod(int(index), len(counts)), int(counts.flat[index])) for index in largest]
    return [(label, predicted, times) for label, predicted, times in errors if times]


SAMPLES_PER_KIND = 12
"""How many images to show of each kind: the most confident errors, and images at even distances."""

MAX_SIDE = 96
"""In pixels; larger images are scaled down."""


def choose_samples(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Choose test images to show: the most confident errors, then some at even distances.

    Args:
      labels: int [N].
      probabilities: float [N, C].

    Returns:
      Their rows, int64 [K], each once.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    most_confident = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:SAMPLES_PER_KIND]
    even = np.linspace(0, len(labels) - 1, min(SAMPLES_PER_KIND, len(labels))).round().astype(np.int64)
    return np.array(list(dict.fromkeys([*most_confident.tolist(), *even.tolist()])), np.int64)


def shrink_images(pixels: np.ndarray) -> np.ndarray:
    """Scale uint8 [K, H, W, C] by area so that no side is above `MAX_SIDE`, keeping the proportions."""
    height, width = pixels.shape[1:3]
    scale = min(1.0, MAX_SIDE / max(height, width))
    sides = max(1, round(height * scale)), max(1, round(width * scale))
    return np.stack([images.resize(image, *sides) for image in pixels])


def write_samples(rows: np.ndarray, images: np.ndarray, path: Path) -> None:
    """Write test images for reports, scaled down: `rows` int64 [K] of the predictions, `images` uint8 [K, H, W, C]."""
    write_arrays(path, rows=rows, images=shrink_images(images))


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz file atomically."""
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
