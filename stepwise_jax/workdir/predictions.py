"""A run's `predictions.npz` and `samples.npz`: its predictions of the test set, and a few test images to show.

`predictions.npz` has N test images, in the order of the test set on disk, C classes, and of these the K = min(10, C)
most probable ones of each image:

| array | type | content |
|---|---|---|
| `ids`, `labels` | str [N], int [N] | the images, and their correct classes |
| `classes` | str [C] | the names of the classes |
| `top_classes` | int32 [N, K] | the most probable classes, the most probable one first |
| `top_probabilities` | float16 [N, K] | their probabilities |
| `label_ranks` | int32 [N] | the rank of the correct class: 0 where the prediction is correct |
| `label_probabilities` | float32 [N] | the probability of the correct class, whose negative logarithm is the loss |
| `calibration` | float64 [15, 3] | sums by bins of equal width of the highest probability: images, this probability, \
correct predictions |
| `probabilities` | float32 [N, C] | all probabilities; only where there are at most ten classes |

Older versions wrote `ids`, `labels`, `classes` and all `probabilities`, whatever C; such files are read, too.
"""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stepwise_jax.data import images
from stepwise_jax.errors import InputError
from stepwise_jax.formatting import replace_unprintable
from stepwise_jax.runtime.files import atomic_write
from stepwise_jax.workdir.files import PREDICTIONS, SAMPLES, open_file

TOP_CLASSES = 10
"""How many of the most probable classes are kept of each image."""

CALIBRATION_BINS = 15


class Ranking(NamedTuple):
    """The most probable classes of some images, and the rank of the correct class."""

    classes: np.ndarray
    """int32 [N, K], the most probable one first."""
    probabilities: np.ndarray
    """float32 [N, K]."""
    label_ranks: np.ndarray
    """int32 [N]; 0 where the correct class is the most probable one."""
    label_probabilities: np.ndarray
    """float32 [N]."""


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

    def class_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """How many test images each class has, and how many of them are predicted correctly: both int [C]."""
        correct = self.labels[self.predicted == self.labels]
        total, right = (np.bincount(labels, minlength=len(self.classes)) for labels in (self.labels, correct))
        return total, right

    def class_accuracy(self) -> np.ndarray:
        """Share of each class's test images that are predicted correctly, float [C]; NaN for a class without images."""
        total, correct = self.class_counts()
        return np.divide(correct, total, out=np.full(len(total), np.nan), where=total > 0)

    def confusion_matrix(self) -> np.ndarray:
        """How often class i was taken for class j: int [C, C]."""
        counts = np.zeros((len(self.classes), len(self.classes)), int)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts

    def confusions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The errors: label, predicted class, and how often; all int [E], sorted by label and predicted class."""
        wrong = self.predicted != self.labels
        pairs = self.labels[wrong].astype(np.int64) * len(self.classes) + self.predicted[wrong]
        found, counts = np.unique(pairs, return_counts=True)
        return *np.divmod(found, len(self.classes)), counts


def read_predictions(folder: Path) -> Predictions | None:
    """Read the predictions of a run; None if it has none yet.

    Raises:
      InputError: for a damaged file.
    """
    path = folder / PREDICTIONS
    if not path.exists():
        return None
    stored = _load_arrays(path, ("labels",))
    labels, (predicted, confidence, names) = stored["labels"], _read_most_probable(stored, path)
    _require(_are_indices(labels, len(names)), path, "a label is not one of its classes")
    classes = tuple(replace_unprintable(str(name)) for name in names.tolist())
    ids = stored.get("ids", np.arange(len(labels))).astype(np.str_)
    _require(ids.shape == labels.shape, path, "ids and labels differ in number")
    samples = _read_samples(folder / SAMPLES, labels, predicted, confidence, ids)
    return Predictions(labels, predicted, classes, samples, confidence, ids)


def _read_most_probable(stored: Mapping[str, np.ndarray], path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The most probable class of each image, int [N], its probability, float [N], and the names of the classes [C]."""
    name = "top_probabilities" if "top_probabilities" in stored and "probabilities" not in stored else "probabilities"
    _require(name in stored, path, "it has no probabilities")
    probabilities = stored[name]
    _require(probabilities.ndim == 2 and probabilities.shape[1] > 0, path, "probabilities are not a matrix")
    _require(stored["labels"].shape == probabilities.shape[:1], path, "labels and probabilities differ in number")
    if name == "probabilities":
        names = stored["classes"] if "classes" in stored else np.arange(probabilities.shape[1])
        _require(names.shape == probabilities.shape[1:], path, "it does not have one name for each class")
        return probabilities.argmax(1), probabilities.max(1), names
    names, classes = (stored.get(name, np.zeros(0, int)) for name in ("classes", "top_classes"))
    _require(classes.shape == probabilities.shape, path, "it does not have one class for each probability")
    _require(names.ndim == 1 and _are_indices(classes.ravel(), len(names)), path, "a prediction is not of its classes")
    return classes[:, 0], probabilities[:, 0], names


def read_correct(folder: Path) -> tuple[np.ndarray, str]:
    """Read which test images a run predicts correctly, bool [N], and the SHA-256 of their ids in this order.

    Raises:
      InputError: if the file is missing or damaged.
    """
    path = folder / PREDICTIONS
    try:
        # Only these arrays: NumPy reads an array of an archive when it is asked for.
        with open_file(path) as file, np.load(file, allow_pickle=False) as stored:
            ids, ranked = sha256(stored["ids"].tobytes()).hexdigest(), "label_ranks" in stored
            correct = stored["label_ranks"] == 0 if ranked else stored["probabilities"].argmax(1) == stored["labels"]
    except _UNREADABLE as error:
        raise InputError(f"{path} is missing or damaged: train the run again") from error
    return correct, ids


def _read_samples(
    path: Path, labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, ids: np.ndarray
) -> tuple[Sample, ...]:
    if not path.exists():
        return ()
    stored = _load_arrays(path, ("rows", "images"))
    rows, images = stored["rows"], stored["images"]
    _require(_are_indices(rows, len(labels)), path, "its images belong to other predictions")
    drawable = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3) and 0 not in images.shape
    _require(drawable or not len(rows), path, "its images are not uint8 [K, H, W, 1 or 3]")
    _require(len(rows) == len(images), path, "rows and images differ in number")
    return tuple(
        Sample(image, int(labels[row]), int(predicted[row]), float(confidence[row]), replace_unprintable(str(ids[row])))
        for row, image in zip(rows.tolist(), images, strict=True)
    )


# NumPy raises all of these for files that are cut short, not .npz archives, or damaged inside.
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, IndexError, EOFError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def _load_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; raises an `InputError` if one of `names` is missing."""
    try:
        # Opened here because NumPy does not close a file that it opened itself and that is no archive.
        with open_file(path) as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    except _UNREADABLE as error:
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
    labels, predicted, counts = predictions.confusions()
    return [(int(labels[i]), int(predicted[i]), int(counts[i])) for i in np.argsort(-counts, kind="stable")[:count]]


SAMPLES_PER_KIND = 12
"""How many images to show of each kind: the most confident errors, and images at even distances."""

MAX_SIDE = 96
"""In pixels; larger images are scaled down."""


def choose_samples(correct: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Choose test images to show: the most confident errors, then some at even distances.

    Args:
      correct: whether each prediction is, bool [N].
      confidence: the highest probability of each image, float [N].

    Returns:
      Their rows, int64 [K], each once.
    """
    wrong = np.flatnonzero(~correct)
    most_confident = wrong[np.argsort(-confidence[wrong], kind="stable")][:SAMPLES_PER_KIND]
    even = np.linspace(0, len(correct) - 1, min(SAMPLES_PER_KIND, len(correct))).round().astype(np.int64)
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


def write_predictions(
    path: Path, ids: Sequence[str], labels: np.ndarray, classes: Sequence[str], ranking: Ranking
) -> None:
    """Write `predictions.npz`; the module says what is in it."""
    arrays = {
        "top_classes": ranking.classes,
        "top_probabilities": ranking.probabilities.astype(np.float16),
        "label_ranks": ranking.label_ranks,
        "label_probabilities": ranking.label_probabilities,
        "calibration": calibration_sums(ranking.probabilities[:, 0], ranking.label_ranks == 0),
    }
    if len(classes) <= TOP_CLASSES:
        arrays["probabilities"] = np.zeros_like(ranking.probabilities)
        np.put_along_axis(arrays["probabilities"], ranking.classes, ranking.probabilities, axis=1)
    write_arrays(path, ids=np.asarray(ids), labels=labels, classes=np.asarray(classes, np.str_), **arrays)


def calibration_sums(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Sum images, confidence and correct predictions in bins of equal width of the confidence, float64 [bins, 3].

    The expected calibration error is the sum over bins of |confidence - correct|, divided by the number of images.

    Args:
      confidence: the highest probability of each image, float [N].
      correct: whether each prediction is, bool [N].
    """
    bins = np.clip(np.ceil(np.nan_to_num(confidence) * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1).astype(int)
    values = (np.ones(len(bins)), confidence, correct)
    return np.stack([np.bincount(bins, each, CALIBRATION_BINS) for each in values], axis=1)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz file atomically."""
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
