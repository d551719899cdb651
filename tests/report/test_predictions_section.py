"""Accuracy by class, confusions and images, from predictions that the tests write."""

import numpy as np
import pytest
from made_runs import make_predictions, make_run
from page_blocks import after, headings

from stepwise_jax.errors import InputError
from stepwise_jax.report import report
from stepwise_jax.report.blocks import Folded, Heading, ImageGrid, Paragraph, Picture, Table
from stepwise_jax.report.predictions_section import predictions_blocks
from stepwise_jax.workdir.predictions import Predictions, most_confused, read_predictions
from stepwise_jax.workdir.runs import read_runs


def random_predictions(classes: int, count: int = 2000) -> Predictions:
    random = np.random.default_rng(1)
    labels = random.integers(0, classes, count)
    predicted = np.where(random.random(count) < 0.6, labels, random.integers(0, classes, count))
    return Predictions(labels, predicted, tuple(f"class {i}" for i in range(classes)), ())


def test_confusions_and_accuracies_are_counted():
    found = random_predictions(4)
    pairs = list(zip(found.labels.tolist(), found.predicted.tolist(), strict=True))
    counts = [[pairs.count((i, j)) for j in range(4)] for i in range(4)]
    assert found.confusion_matrix().tolist() == counts
    assert found.class_accuracy().tolist() == pytest.approx([counts[i][i] / sum(counts[i]) for i in range(4)])
    wrong = sorted((-counts[i][j], i, j) for i in range(4) for j in range(4) if i != j)
    assert most_confused(found, 3) == [(i, j, -times) for times, i, j in wrong[:3]]


def test_each_class_is_listed_with_its_most_common_mistake():
    labels, predicted = np.array([0, 0, 0, 0, 2]), np.array([0, 1, 2, 2, 2])
    blocks = predictions_blocks(Predictions(labels, predicted, ("cat", "dog", "bird"), ()), 2, "")
    table = after(blocks, "Accuracy by class", Table)
    assert isinstance(table, Table)
    assert table.rows == (
        ("cat", "25.00 %", "4", "1", "bird (2)"),
        ("dog", "–", "0", "0", "–"),
        ("bird", "100.00 %", "1", "1", "–"),
    )


def test_a_class_without_images_has_no_accuracy():
    found = Predictions(np.array([0, 0, 2]), np.array([0, 1, 2]), ("a", "b", "c"), ())
    np.testing.assert_array_equal(found.class_accuracy(), [0.5, np.nan, 1.0])


def test_few_classes_are_drawn_and_many_are_listed():
    few, many = (predictions_blocks(random_predictions(count), 2, "") for count in (5, 40))
    assert [type(block) for block in few] == [Heading, Paragraph, Picture, Table, Heading, Paragraph, Picture]
    assert [type(block) for block in many] == [Heading, Paragraph, Picture, Table, Heading, Paragraph, Table]
    ends, confusions = (block for block in many if isinstance(block, Table))
    shares = [float(row[1].removesuffix(" %")) for row in ends.rows]
    assert len(shares) == 20
    assert shares == sorted(shares)
    assert len(confusions.rows) == 20


def test_the_page_of_a_run_shows_its_predictions_and_images(tmp_path):
    folder = make_run(tmp_path / "run")
    make_predictions(folder, wrong=[3, 4])
    blocks = report.runs_page(read_runs([folder]))
    assert {"Accuracy by class", "Confusions", "Test images", "Noise scale and accuracy"} <= set(headings(blocks))
    wrong, right = (after(blocks, title, ImageGrid) for title in ("Wrong predictions", "Test images"))
    assert isinstance(wrong, ImageGrid)
    assert isinstance(right, ImageGrid)
    assert [caption for _, caption in (*wrong.items, *right.items)] == [
        "✗ cat, 70 %; it is dog (image 3)",
        "✗ dog, 70 %; it is cat (image 4)",
        "✓ dog, 70 % (image 5)",
        "✓ cat, 70 % (image 6)",
    ]
    listed = after(blocks, "Wrong predictions", Folded)
    assert isinstance(listed, Folded)
    (table,) = listed.blocks
    assert isinstance(table, Table)
    assert table.rows == (("image 3", "cat", "70 %", "dog"), ("image 4", "dog", "70 %", "cat"))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04nothing", b"not numpy"])
def test_damaged_predictions_are_reported(tmp_path, damage):
    (tmp_path / "predictions.npz").write_bytes(damage)
    with pytest.raises(InputError, match=r"predictions\.npz is damaged"):
        read_predictions(tmp_path)


def test_older_runs_have_classes_by_number(tmp_path):
    probabilities = np.array([[0.1, 0.9]])
    np.savez(tmp_path / "predictions.npz", ids=np.array(["a"]), labels=np.array([1]), probabilities=probabilities)
    found = read_predictions(tmp_path)
    assert found is not None
    assert found.classes == ("0", "1")
    assert found.samples == ()
