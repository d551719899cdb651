"""What a trained network answered on the test set, read from a run's `predictions.npz` and `samples.npz`."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepwise_jax.errors import InputError

PREDICTIONS, SAMPLES = "predictions.npz", "samples.npz"


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
class Answers:
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


def read_answers(workdir: Path) -> Answers | None:
    """The answers of a run, or None where it has none yet.

    Raises:
      InputError: for a file that is damaged.
    """
    path = workdir / PREDICTIONS
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            labels, probabilities = stored["labels"], stored["probabilities"]
            names = stored["classes"].tolist() if "classes" in stored else map(str, range(probabilities.shape[1]))
        return Answers(
            labels, probabilities.argmax(1), tuple(names), _samples(workdir / SAMPLES, labels, probabilities)
        )
    # What numpy raises for files that are cut short or no archives, and for arrays of other shapes.
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged: it is not what a run writes there ({error})") from error


def _samples(path: Path, labels: np.ndarray, probabilities: np.ndarray) -> tuple[Sample, ...]:
    if not path.exists():
        return ()
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
        rows, images = stored["rows"].tolist(), stored["images"]
    return tuple(
        Sample(image, int(labels[row]), int(probabilities[row].argmax()), float(probabilities[row].max()))
        for row, image in zip(rows, images, strict=True)
    )


def most_confused(answers: Answers, count: int) -> Sequence[tuple[int, int, int]]:
    """The most frequent mistakes: label, what it was taken for, how often."""
    counts = answers.confusion()
    np.fill_diagonal(counts, 0)
    places = np.argsort(-counts, axis=None, kind="stable")[:count]
    pairs = [(*divmod(int(place), len(counts)), int(counts.flat[place])) for place in places]
    return [(label, taken, times) for label, taken, times in pairs if times]
