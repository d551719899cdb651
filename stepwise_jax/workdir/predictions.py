"""A run's `predictions.npz` and `samples.npz`: test predictions, and a few test images to show."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepwise_jax.data import images
from stepwise_jax.errors import InputError
from stepwise_jax.formatting import replace_unprintable
from stepwise_jax.workdir.files import PREDICTIONS, SAMPLES, atomic_write


@dataclass(frozen=True)
class Sample:
    """One test image and its answer."""

    image: np.ndarray
    """uint8 [H, W, C]."""
    label: int
    predicted: int
    probability: float
    """Of the predicted class."""


@dataclass(frozen=True)
class Predictions:
    """All answers of one run."""

    labels: np.ndarray
    """int [N]."""
    predicted: np.ndarray
    """int [N], the most probable class."""
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    def confusion(self) -> np.ndarray:
        """How often class i was taken for class j: int [C, C]."""
        counts = np.zeros((len(self.classes), len(self.classes)), int)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts

    def accuracy(self) -> np.ndarray:
        """Right answers of each class over its test images, float [C]; NaN for a class without images."""
        counts = self.confusion()
        totals = counts.sum(1)
        return np.divide(np.diag(counts), totals, out=np.full(len(totals), np.nan), where=totals > 0)


def read_predictions(folder: Path) -> Predictions | None:
    """The answers of a run, or None where it has none yet.

    Raises:
      InputError: for a file that is damaged.
    """
    path = folder / PREDICTIONS
    if not path.exists():
        return None
    stored = _arrays(path, ("labels", "probabilities"))
    labels, probabilities = stored["labels"], stored["probabilities"]
    _require(probabilities.ndim == 2 and probabilities.shape[1] > 0, path, "probabilities are no matrix")
    _require(_are_places(labels, probabilities.shape[1]), path, "a label is none of its classes")
    _require(labels.shape == probabilities.shape[:1], path, "labels and probabilities differ in number")
    names = stored["classes"] if "classes" in stored else np.arange(probabilities.shape[1])
    _require(names.shape == probabilities.shape[1:], path, "it has not one name for each class")
    classes = tuple(replace_unprintable(str(name)) for name in names.tolist())
    return Predictions(labels, probabilities.argmax(1), classes, _samples(folder / SAMPLES, labels, probabilities))


def _samples(path: Path, labels: np.ndarray, probabilities: np.ndarray) -> tuple[Sample, ...]:
    if not path.exists():
        return ()
    stored = _arrays(path, ("rows", "images"))
    rows, images = stored["rows"], stored["images"]
    _require(_are_places(rows, len(labels)), path, "it has images of other predictions")
    drawable = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3) and 0 not in images.shape
    _require(drawable or not len(rows), path, "its images are not uint8 [K, H, W, 1 or 3]")
    _require(len(rows) == len(images), path, "rows and images differ in number")
    return tuple(
        Sample(image, int(labels[row]), int(probabilities[row].argmax()), float(probabilities[row].max()))
        for row, image in zip(rows.tolist(), images, strict=True)
    )


def _arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """All arrays of a file, among them those that it must have."""
    try:
        # numpy leaves a file open that is no archive, where it opened the file itself.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    # What numpy raises for files that are cut short, no archives, no .npz, or damaged inside.
    except (OSError, ValueError, TypeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged: it is not what a run writes there ({error})") from error
    for name in names:
        _require(name in arrays, path, f"it has no {name}")
    return arrays


def _are_places(numbers: np.ndarray, count: int) -> bool:
    """Whether this is a row of whole numbers from 0 to below `count`."""
    whole = numbers.ndim == 1 and np.issubdtype(numbers.dtype, np.integer)
    return whole and bool(np.all((numbers >= 0) & (numbers < count)))


def _require(holds: bool, path: Path, otherwise: str) -> None:
    if not holds:
        raise InputError(f"{path} is damaged: {otherwise}")


def most_confused(answers: Predictions, count: int) -> Sequence[tuple[int, int, int]]:
    """The most frequent mistakes: label, what it was taken for, how often."""
    counts = answers.confusion()
    np.fill_diagonal(counts, 0)
    places = np.argsort(-counts, axis=None, kind="stable")[:count]
    pairs = [(*divmod(int(place), len(counts)), int(counts.flat[place])) for place in places]
    return [(label, taken, times) for label, taken, times in pairs if times]


EACH = 12
"""Images of either kind: wrong with the highest probability, and drawn evenly."""

LONGEST_SIDE = 96
"""In pixels; larger images are scaled down."""


def choose(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Rows int64 [K], each once: first the wrong ones, the surest first, then some at even distances over all.

    Args:
      labels: int [N].
      probabilities: float [N, C].
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    surest = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:EACH]
    even = np.linspace(0, len(labels) - 1, min(EACH, len(labels))).round().astype(np.int64)
    return np.array(list(dict.fromkeys([*surest.tolist(), *even.tolist()])), np.int64)


def shrink(pixels: np.ndarray) -> np.ndarray:
    """uint8 [K, H, W, C] with no side above `LONGEST_SIDE`, in the same proportions, scaled by area."""
    height, width = pixels.shape[1:3]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    sides = max(1, round(height * scale)), max(1, round(width * scale))
    return np.stack([images.resize(image, *sides) for image in pixels])


def write_samples(rows: np.ndarray, images: np.ndarray, path: Path) -> None:
    """A few test images for reports: `rows` int64 [K] of the predictions, `images` uint8 [K, H, W, C], scaled down."""
    write_arrays(path, rows=rows, images=shrink(images))


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes an .npz file, as a whole or not at all."""
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
