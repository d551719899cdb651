"""Predictions are read back, or an error says what is wrong with the file."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.predictions import (
    Predictions,
    Ranking,
    calibration_sums,
    most_confused,
    read_correct,
    read_predictions,
    write_predictions,
)

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
        ({"probabilities": None}, r"predictions\.npz is damaged: it has no probabilities"),
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


def rank(probabilities: np.ndarray, labels: np.ndarray) -> Ranking:
    """The definition: the ten most probable classes, and how many are more probable than the correct one."""
    classes = np.argsort(-probabilities, axis=1)[:, :10].astype(np.int32)
    own = probabilities[np.arange(len(labels)), labels]
    ranks = (probabilities > own[:, None]).sum(axis=1).astype(np.int32)
    return Ranking(classes, np.take_along_axis(probabilities, classes, axis=1), ranks, own)


def write_both(folder: Path, classes: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """The same predictions in `new` and, as older versions wrote them, in `old`; returns labels and probabilities."""
    random = np.random.default_rng(1)
    probabilities = random.dirichlet(np.full(classes, 0.2), count).astype(np.float32)
    labels = np.where(random.random(count) < 0.5, probabilities.argmax(1), random.integers(0, classes, count))
    ids, names = [f"image {row}" for row in range(count)], [f"class {label}" for label in range(classes)]
    for name in ("new", "old"):
        (folder / name).mkdir()
        np.savez(folder / name / "samples.npz", rows=np.array([4, 1]), images=np.zeros((2, 5, 4, 3), np.uint8))
    write_predictions(folder / "new" / "predictions.npz", ids, labels, names, rank(probabilities, labels))
    arrays = {"ids": np.array(ids), "labels": labels, "probabilities": probabilities, "classes": np.array(names)}
    np.savez_compressed(folder / "old" / "predictions.npz", **arrays)
    return labels, probabilities


@pytest.mark.parametrize("classes", [2, 10, 11, 300])
def test_readers_find_the_same_in_new_files_as_in_old_ones(tmp_path, classes):
    labels, probabilities = write_both(tmp_path, classes)
    new, old = (read_predictions(tmp_path / name) for name in ("new", "old"))
    assert new is not None
    assert old is not None
    np.testing.assert_array_equal(new.predicted, old.predicted)
    np.testing.assert_array_equal(new.labels, old.labels)
    assert new.classes == old.classes
    for ours, theirs in zip(new.samples, old.samples, strict=True):
        assert (ours.label, ours.predicted) == (theirs.label, theirs.predicted)
        assert ours.probability == pytest.approx(theirs.probability, rel=1e-3)
    ours, theirs = (read_correct(tmp_path / name) for name in ("new", "old"))
    np.testing.assert_array_equal(ours[0], probabilities.argmax(1) == labels)
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]


def test_all_probabilities_are_kept_of_ten_classes_and_the_ten_highest_of_more(tmp_path):
    for classes in (10, 11):
        (tmp_path / str(classes)).mkdir()
        _, probabilities = write_both(tmp_path / str(classes), classes)
        with np.load(tmp_path / str(classes) / "new" / "predictions.npz") as stored:
            assert stored["top_probabilities"].dtype == np.float16
            np.testing.assert_allclose(
                stored["top_probabilities"], -np.sort(-probabilities, axis=1)[:, :10], rtol=1e-3, atol=1e-7
            )
            assert ("probabilities" in stored) == (classes == 10)
            if classes == 10:
                np.testing.assert_array_equal(stored["probabilities"], probabilities)


def test_a_thousand_classes_take_a_fraction_of_the_space(tmp_path):
    write_both(tmp_path, 1000)
    new, old = ((tmp_path / name / "predictions.npz").stat().st_size for name in ("new", "old"))
    assert new < old / 20


def test_loss_and_calibration_follow_from_what_is_kept(tmp_path):
    labels, probabilities = write_both(tmp_path, 50)
    with np.load(tmp_path / "new" / "predictions.npz") as stored:
        loss, calibration = -np.log(stored["label_probabilities"]).mean(), stored["calibration"]
    assert loss == pytest.approx(-np.log(probabilities[np.arange(400), labels]).mean(), rel=1e-6)
    confidence, error = probabilities.max(1), 0.0
    for low in range(15):
        # Guo et al. (2017): bin m holds the confidences in ((m - 1) / 15, m / 15].
        own = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if own.any():
            error += own.mean() * abs(confidence[own].mean() - (probabilities.argmax(1) == labels)[own].mean())
    images, sure, right = calibration.T
    assert images.sum() == 400
    assert np.abs(sure - right).sum() / 400 == pytest.approx(error, rel=1e-5)


def test_a_confidence_of_zero_one_or_none_has_a_bin():
    sums = calibration_sums(np.array([0.0, 1.0]), np.array([False, True]))
    assert sums[0].tolist() == [1, 0, 0]
    assert sums[-1].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_classes": None}, "it does not have one class for each probability"),
        ({"top_classes": np.zeros((400, 9), np.int32)}, "it does not have one class for each probability"),
        ({"top_classes": np.full((400, 10), 11)}, "a prediction is not of its classes"),
        ({"classes": None}, "a prediction is not of its classes"),
        ({"top_probabilities": np.zeros(400)}, "probabilities are not a matrix"),
        ({"labels": np.full(400, 11)}, "a label is not one of its classes"),
    ],
)
def test_arrays_of_the_highest_probabilities_that_do_not_fit_are_reported(tmp_path, changes, message):
    write_both(tmp_path, 11)
    with np.load(tmp_path / "new" / "predictions.npz") as stored:
        arrays = {**stored, **changes}
    np.savez(tmp_path / "new" / "predictions.npz", **{name: each for name, each in arrays.items() if each is not None})
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / "new")


def test_the_memory_of_counting_does_not_grow_with_the_square_of_the_classes():
    labels, predicted = np.array([99_999, 5, 5, 7]), np.array([99_999, 5, 6, 7])
    found = Predictions(labels, predicted, tuple(map(str, range(100_000))), ())
    tracemalloc.start()
    accuracy, mistakes = found.class_accuracy(), most_confused(found, 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6
    assert accuracy[[5, 7, 99_999]].tolist() == [0.5, 1, 1]
    assert np.isnan(accuracy).sum() == 100_000 - 3
    assert mistakes == [(5, 6, 1)]
