"""Fewer training images, and some held out for scoring: which they are, on record and in what is computed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepwise_jax.data import datasets, splits, subsets
from stepwise_jax.data.dataset import Sizes
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.experiment.serialization import override_fields

DRAWS = ("tfds", "seeded", "stratified")
STORED = Sizes(1437, 360, 10)


def data(data_dir: Path, **fields: Any) -> DataConfig:
    return DataConfig(data_dir=str(data_dir), image_size=8, **fields)


def sha256(ids) -> str:
    digest = hashlib.sha256()
    for name in ids:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("fields", "train", "test"),
    [
        ({}, ("train", range(1437)), ("test", range(360))),
        ({"train_examples": 200}, ("train", range(200)), ("test", range(360))),
        ({"validation_fraction": 0.1}, ("train", range(1293)), ("train", range(1293, 1437))),
        ({"train_examples": 200, "validation_fraction": 0.1}, ("train", range(200)), ("train", range(1293, 1437))),
        ({"train_examples": 1293, "validation_fraction": 0.1}, ("train", range(1293)), ("train", range(1293, 1437))),
    ],
)
def test_rows(data_dir, fields, train, test):
    config = data(data_dir, **fields)
    assert splits.select_rows(config, "train", STORED) == train
    assert splits.select_rows(config, "test", STORED) == test
    assert datasets.sizes(config) == Sizes(len(train[1]), len(test[1]), 10)
    opened = datasets.open_dataset(config)
    assert [datasets.used_rows(config, opened, split) for split in ("train", "test")] == [train, test]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_examples": 1438}, "data.train_examples is 1438: it must be at most 1437"),
        (
            {"train_examples": 1437, "validation_fraction": 0.1},
            "data.train_examples is 1437: it must be at most 1293, the number of training images available",
        ),
        ({"validation_fraction": 0.0001}, "data.validation_fraction is 0.0001"),
        ({"validation_fraction": 0.9999}, "data.validation_fraction is 0.9999"),
        ({"train_examples": 0}, "data.train_examples is 0: it must be at least 1"),
        ({"train_examples": 0.5}, "data.train_examples is 0.5: it must be a whole number"),
        ({"validation_fraction": 1.0}, "data.validation_fraction is 1.0: it must be at least 0 and below 1"),
        ({"validation_fraction": -0.1}, "data.validation_fraction is -0.1"),
    ],
)
def test_more_than_there_is(data_dir, fields, message):
    with pytest.raises(InputError) as caught:
        datasets.sizes(data(data_dir, **fields))
    assert message in str(caught.value)


def test_rows_are_read_alone_and_in_the_same_order(data_dir):
    opened = datasets.open_dataset(data(data_dir))
    whole = datasets.load(opened, "train", 8, lambda *_: None)
    part = datasets.load(opened, "train", 8, lambda *_: None, range(1200, 1437))
    np.testing.assert_array_equal(part.images, whole.images[1200:])
    np.testing.assert_array_equal(part.labels, whole.labels[1200:])
    assert part.ids == whole.ids[1200:]
    labels, ids = datasets.labels_and_ids(opened, "train", range(1200, 1437))
    np.testing.assert_array_equal(labels, part.labels)
    assert ids == part.ids
    inputs = np.array([3, 0, 200])
    streamed = datasets.make_image_reader(opened, "train", 8, range(1200, 1437))(inputs)
    np.testing.assert_array_equal(streamed, whole.images[1200 + inputs])


@pytest.mark.parametrize("kind", DRAWS)
def test_subsets_stay_within_the_training_rows(data_dir, kind):
    config = data(data_dir, train_examples=500, validation_fraction=0.3, subset_draw=kind)
    opened = datasets.open_dataset(config)
    (split, rows), (scored, held_out) = (datasets.used_rows(config, opened, each) for each in ("train", "test"))
    labels, ids = datasets.labels_and_ids(opened, split, rows)
    counts = [100, 250, 500]
    drawn = subsets.draw(kind, 3, labels, ids, counts, opened.builder)
    parts = [{ids[row] for row in subset.rows} for subset in drawn]
    assert [len(part) for part in parts] == counts
    assert parts[0] < parts[1] < parts[2] == set(ids)
    assert not parts[2] & set(datasets.labels_and_ids(opened, scored, held_out)[1])
    for subset in drawn:
        assert subset.class_counts == tuple(np.bincount(labels[subset.rows], minlength=10))


@pytest.mark.parametrize("kind", DRAWS)
def test_a_run_trains_on_its_share_and_scores_what_is_held_out(train, data_dir, tmp_path, kind):
    fields = {"data.train_examples": 300, "data.validation_fraction": 0.2, "data.subset_draw": kind}
    fields |= {"plan.epochs_per_stage": 1, "plan.batch_size": 15}
    summary = train(tmp_path, **fields)
    opened = datasets.open_dataset(data(data_dir))
    ids, labels = datasets.labels_and_ids(opened, "train")[1], datasets.labels_and_ids(opened, "train")[0]
    held_out = round(0.2 * 1437)
    recorded = json.loads((tmp_path / "subsets.json").read_text())
    # What is scored is a part of the training split.
    assert recorded["test"] == {
        "count": held_out,
        "sha256": sha256(ids[-held_out:]),
        "content_sha256": opened.builder.info.metadata["content_sha256"]["train"],
        "labels_sha256": hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(),
    }
    assert (recorded["train"]["count"], recorded["train"]["sha256"]) == (300, sha256(ids[:300]))
    assert [stage["count"] for stage in recorded["stages"]] == [30, 150, 300]
    if kind == "tfds":
        assert [stage["sha256"] for stage in recorded["stages"]] == [sha256(ids[:count]) for count in (30, 150, 300)]
    with np.load(tmp_path / "predictions.npz") as stored:
        assert tuple(stored["ids"]) == ids[-held_out:]
        np.testing.assert_array_equal(stored["labels"], labels[-held_out:])
        assert summary["top1"] == pytest.approx(np.mean(stored["probabilities"].argmax(1) == stored["labels"]))


def test_resident_and_streamed_runs_are_the_same_to_the_bit(train, tmp_path):
    fields = {"data.train_examples": 300, "data.validation_fraction": 0.2, "data.normalisation": "dataset"}
    fields |= {"plan.epochs_per_stage": 1, "plan.batch_size": 15, "data.subset_draw": "seeded"}
    runs = {kind: train(tmp_path / kind, **fields, **{"data.delivery": kind}) for kind in ("resident", "streamed")}
    assert runs["resident"]["state_sha256"] == runs["streamed"]["state_sha256"]
    assert runs["resident"]["top1"] == runs["streamed"]["top1"]
    documents = [(tmp_path / kind / "subsets.json").read_text() for kind in runs]
    assert documents[0] == documents[1]


def test_normalisation_by_the_data_set_sees_training_images_alone(train, data_dir, tmp_path):
    fields = {"data.train_examples": 300, "data.validation_fraction": 0.2, "data.normalisation": "dataset"}
    train(tmp_path, **fields, **{"plan.epochs_per_stage": 1, "plan.batch_size": 15})
    pixels = datasets.load(datasets.open_dataset(data(data_dir)), "train", 8, lambda *_: None).images[:300] / 255
    written = json.loads((tmp_path / "preprocessing.json").read_text())
    text = json.dumps(written)
    assert any(abs(float(word) - pixels.mean()) < 1e-5 for word in numbers(written)), text


def numbers(document: Any) -> list[float]:
    if isinstance(document, dict | list):
        parts = document.values() if isinstance(document, dict) else document
        return [number for part in parts for number in numbers(part)]
    return [document] if isinstance(document, float) else []


def test_another_share_is_another_experiment(train, tmp_path):
    fields = {"data.train_examples": 300, "data.validation_fraction": 0.2, "plan.epochs_per_stage": 1}
    fields |= {"plan.batch_size": 15}
    train(tmp_path, **fields)
    with pytest.raises(InputError, match=r"data\.train_examples: 320 instead of 300"):
        train(tmp_path, **{**fields, "data.train_examples": 320})


def test_fields_are_replaced_by_name(experiment):
    changed = override_fields(experiment, {"data.train_examples": 100, "data.validation_fraction": 0.5})
    assert (changed.data.train_examples, changed.data.validation_fraction) == (100, 0.5)
    assert experiment.data.train_examples is None


@pytest.mark.parametrize(
    ("fraction", "images", "held_out"),
    [(0.07, 100, 7), (0.07, 150, 11), (0.2, 101, 21), (0.29, 100, 29), (0.57, 100, 57), (639 / 3148, 3148, 639)],
)
def test_a_test_fraction_is_rounded_up_and_exact(fraction, images, held_out):
    mask = splits.draw_test_split([str(row) for row in range(images)], [0] * images, fraction)
    assert mask.sum() == held_out


def test_a_validation_fraction_is_rounded_as_tfds_rounds_percentages():
    for percent in range(1, 100):
        config = DataConfig(validation_fraction=percent / 100)
        for images in (*range(100, 200), 150, 350, 550, 1437, 50_000):
            held_out = splits.used_sizes(config, Sizes(images, 10, 2)).test
            assert held_out == round(percent * images / 100.0)


def test_the_plans_rounding_is_tfds_percentages_in_the_papers_stages():
    for images in (*range(1, 2000), 2509, 47_386, 50_000, 75_750):
        for percent in (20, 40, 60, 80, 100):
            assert round(percent / 100 * images) == round(percent * images / 100.0)
    # It differs elsewhere, as docs/data.md says; the subset is train[:M_i], with the plan's M_i.
    assert round(0.07 * 150) == 11
    assert round(7 * 150 / 100.0) == 10
