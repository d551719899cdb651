"""Data sets of others whose labels name no class: the labelled split serves, or the count is in the refusal."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from data_files import quiet, source_of

from stepwise_jax.data import datasets
from stepwise_jax.data.prepared import labels, writing
from stepwise_jax.data.source import SourceSplit
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig


@pytest.fixture
def theirs(tmp_path, monkeypatch, caplog):
    """A function that writes a data set as if TFDS had prepared it, and returns its configuration."""
    monkeypatch.setattr(writing, "check_source", lambda source: None)
    labels._warn_once.cache_clear()

    def write(**split_labels) -> DataConfig:
        total = sum(map(len, split_labels.values()))
        source = source_of(np.random.default_rng(0).integers(0, 256, (total, 4, 4, 3), np.uint8))
        ids = iter(f"made_{row}" for row in range(total))
        splits = {name: SourceSplit(tuple(next(ids) for _ in each), tuple(each)) for name, each in split_labels.items()}
        writing.prepare(dataclasses.replace(source, splits=splits), tmp_path, quiet)
        (tmp_path / "stepwise_made").rename(tmp_path / "theirs")
        path = tmp_path / "theirs/1.0.0/metadata.json"
        metadata = json.loads(path.read_text())
        path.write_text(json.dumps({name: metadata[name] for name in ("class_names", "image_shape")}))
        caplog.clear()
        return DataConfig(name="theirs", data_dir=str(tmp_path))

    return write


def test_labelled_validation_images_serve_where_test_images_have_no_labels(theirs, caplog):
    caplog.set_level(logging.WARNING)
    data = theirs(train=(0, 1, 0, 1), test=(-1,) * 5, validation=(1, 0, 1))
    for _ in range(2):
        dataset = datasets.open_dataset(data)
        assert datasets.load(dataset, "test", 4, quiet).labels.shape == (3,)
        assert datasets.sizes(data).test == 3
    assert [record.getMessage() for record in caplog.records] == [
        "theirs: the test images have no labels; the images of 'validation' are scored instead"
    ]


@pytest.mark.parametrize("splits", [{}, {"validation": (-1, -1)}])
def test_test_images_without_labels_are_refused_where_nothing_else_is_labelled(theirs, splits):
    data = theirs(train=(0, 1, 0, 1), test=(-1,) * 5, **splits)
    for use in (datasets.open_dataset, datasets.sizes, lambda data: datasets.prepare(data, quiet)):
        with pytest.raises(InputError, match=r"data.name is 'theirs': its test images have no labels.*validation_frac"):
            use(data)


def test_test_images_without_labels_do_not_matter_where_training_images_are_held_out(theirs):
    data = theirs(train=(0, 1, 0, 1), test=(-1,) * 5)
    data = DataConfig(name="theirs", data_dir=data.data_dir, validation_fraction=0.25)
    assert datasets.sizes(data).test == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_outside_the_classes_are_counted_and_refused(theirs, split):
    data = theirs(**{"train": (0, 1, 0, 1), "test": (0, 1, 1)} | {split: (0, -1, 1, -1)})
    dataset = datasets.open_dataset(data)
    message = rf"2 of 4 labels of the split '{split}' name no class, such as -1: they must lie in 0 to 1"
    for read in (
        lambda: datasets.load(dataset, split, 4, quiet),
        lambda: datasets.labels_and_ids(dataset, split),
        lambda: datasets.prepare(data, quiet, fetch=True),
    ):
        with pytest.raises(InputError, match=message):
            read()


def test_prepare_says_which_images_are_unused(theirs, caplog):
    caplog.set_level(logging.WARNING)
    datasets.prepare(theirs(train=(0, 1), test=(0, 1), validation=(0, 1, 1)), quiet, fetch=True)
    assert [record.getMessage() for record in caplog.records] == [
        "theirs: its 3 images of 'validation' are neither trained on nor scored"
    ]


def test_our_own_data_are_not_sampled(tmp_path: Path, monkeypatch):
    writing.prepare(source_of(np.zeros((6, 2, 2, 1), np.uint8)), tmp_path, quiet)
    monkeypatch.setattr(labels, "RecordReader", None)
    datasets.open_dataset(DataConfig(name="stepwise_made", data_dir=str(tmp_path)))
