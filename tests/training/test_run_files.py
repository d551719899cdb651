"""The files that a run writes for later use: its preprocessing, predictions and samples."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.workdir.predictions import choose_samples
from tests.digits_run import config, examples, train


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory) -> Path:
    return train(config(data_dir), tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def test_preprocessing_json_says_what_the_network_takes(run, data_dir):
    document = json.loads((run / "preprocessing.json").read_text())
    pixels = examples(data_dir, "train").images / 255
    assert document["mean"] == pytest.approx([pixels.mean()] * 3)
    assert document["std"] == pytest.approx([pixels.std()] * 3)
    del document["mean"], document["std"]
    assert document == {
        "image_size": 16,
        "stored_size": [8, 8],
        "channels": 1,
        "classes": list("0123456789"),
        "dataset": "digits",
    }


def test_it_is_written_once(copy, data_dir):
    path = copy / "preprocessing.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    train(config(data_dir), copy)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_predictions_name_the_classes_and_samples_are_of_them(run, data_dir):
    predictions, kept = np.load(run / "predictions.npz"), np.load(run / "samples.npz")
    assert predictions["classes"].tolist() == list("0123456789")
    assert predictions["classes"].dtype.kind == "U"
    probabilities = predictions["probabilities"]
    rows = choose_samples(probabilities.argmax(1) == predictions["labels"], probabilities.max(1))
    assert kept["rows"].dtype == np.int64
    np.testing.assert_array_equal(kept["rows"], rows)
    np.testing.assert_array_equal(kept["images"], examples(data_dir, "test").images[rows])


def test_a_streamed_run_leaves_the_same(run, data_dir, tmp_path):
    train(override_fields(config(data_dir), {"data.delivery": "streamed"}), tmp_path / "run")
    assert (tmp_path / "run" / "preprocessing.json").read_bytes() == (run / "preprocessing.json").read_bytes()
    ours, theirs = (np.load(folder / "samples.npz") for folder in (tmp_path / "run", run))
    for name in ("rows", "images"):
        np.testing.assert_array_equal(ours[name], theirs[name])
