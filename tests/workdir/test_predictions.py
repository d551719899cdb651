"""Predictions are read back, or an error says what is wrong with the file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.predictions import read_predictions

COUNT, CLASSES = 6, 3
PROBABILITIES = np.random.default_rng(0).random((COUNT, CLASSES))


def write(folder: Path, **changes: Any) -> Path:
    """Both files, with other arrays in them; None leaves one out."""
    predictions = {
        "ids": np.arange(COUNT),
        "labels": np.arange(COUNT) % CLASSES,
        "probabilities": PROBABILITIES,
        "classes": np.array(["cat", "dog", "bird"]),
    }
    samples = {"rows": np.array([4, 1]), "images": np.zeros((2, 5, 4, 3), np.uint8)}
    for name, arrays in (("predictions.npz", predictions), ("samples.npz", samples)):
        changed = {key: changes.get(key, value) for key, value in arrays.items()}
        np.savez(folder / name, **{key: value for key, value in changed.items() if value is not None})
    return folder


def test_predictions_are_read_with_their_images(tmp_path):
    found = read_predictions(write(tmp_path))
    assert found is not None
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert found.predicted.tolist() == [row.index(max(row)) for row in PROBABILITIES.tolist()]
    assert found.classes == ("cat", "dog", "bird")
    assert [sample.label for sample in found.samples] == [1, 1]
    assert [sample.probability for sample in found.samples] == [max(PROBABILITIES[4]), max(PROBABILITIES[1])]


def test_names_that_cannot_be_drawn_are_replaced(tmp_path):
    found = read_predictions(write(tmp_path, classes=np.array(["a\nb", "\udcff", "猫 $x$"])))
    assert found is not None
    assert found.classes == ("a\ufffdb", "\ufffd", "猫 $x$")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, r"predictions\.npz is damaged: it has no labels"),
        ({"labels": np.array([0, 1, 2, 3, 0, 0])}, "a label is not one of its classes"),
        ({"labels": np.array([0, 1, 2, -1, 0, 0])}, "a label is not one of its classes"),
        ({"labels": np.zeros(COUNT)}, "a label is not one of its classes"),
        ({"labels": np.array([0, 1])}, "labels and probabilities differ in number"),
        ({"probabilities": np.zeros(COUNT)}, "probabilities are not a matrix"),
        ({"classes": np.array(["cat"])}, "it does not have one name for each class"),
        ({"labels": np.array([None, 1], object)}, r"predictions\.npz is damaged: its arrays cannot be read"),
        ({"rows": None}, r"samples\.npz is damaged: it has no rows"),
        ({"rows": np.array([0, COUNT])}, r"samples\.npz is damaged: its images belong to other predictions"),
        ({"rows": np.array([[0, 1]])}, "its images belong to other predictions"),
        ({"rows": np.array([0])}, "rows and images differ in number"),
        ({"images": np.zeros((2, 5, 4, 3))}, "its images are not uint8"),
        ({"images": np.zeros((2, 5, 4, 2), np.uint8)}, "its images are not uint8"),
        ({"images": np.zeros((2, 5), np.uint8)}, "its images are not uint8"),
    ],
)
def test_arrays_that_do_not_fit_are_reported(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path)


def test_a_flipped_byte_is_reported(tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez_compressed(path, labels=np.zeros(600, int), probabilities=np.random.default_rng(0).random((600, 3)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"predictions\.npz is damaged"):
        read_predictions(tmp_path)
