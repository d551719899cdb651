"""TFDS's own data sets, where its builders can run and where not; neither TensorFlow nor a download is needed."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_files import quiet, source_of

import launch
from stepwise_jax.data import datasets
from stepwise_jax.data.prepared import tfds_builders, writing
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig


def prepare(name: str, tmp_path: Path, *words: str) -> int:
    return launch.main(["prepare", name, "--data-dir", str(tmp_path / "data"), *words])


@pytest.fixture
def tensorflow(monkeypatch) -> None:
    """As if TensorFlow were installed."""
    monkeypatch.setattr(tfds_builders, "_has_tensorflow", lambda: True)


class Builder:
    """Stands for TFDS's builder of a data set, and prepares nine small images."""

    def __init__(self, name: str, data_dir: Path, file_format: str, label: str = "label"):
        assert file_format == "array_record"
        made = data_dir.parent / "made"
        writing.prepare(source_of(np.arange(9 * 64, dtype=np.uint8).reshape(9, 8, 8, 1)), made, quiet)
        self._from, self._to = made / "stepwise_made/1.0.0", data_dir / name / "1.0.0"
        features: Any = tfds.builder_from_directory(self._from).info.features
        self.info = SimpleNamespace(features={label if key == "label" else key: features[key] for key in features})
        self.manual_dir = None

    def download_and_prepare(self, download_config) -> None:
        self.manual_dir = download_config.manual_dir
        shutil.copytree(self._from, self._to)


def test_without_tensorflow_the_extra_is_named(tmp_path, capsys):
    assert prepare("mnist", tmp_path) == 2
    message = capsys.readouterr().err
    assert (
        "mnist is one of TFDS's own data sets, and only TensorFlow can prepare them: install the extra 'tensorflow'"
        in message
    )
    assert not (tmp_path / "data").exists()


def test_error_says_how_to_prepare_it(tmp_path):
    data = DataConfig(name="mnist", data_dir=str(tmp_path))
    for use in (datasets.sizes, datasets.open_dataset, lambda data: datasets.prepare(data, quiet)):
        with pytest.raises(InputError, match=r"`python launch.py prepare mnist`, which needs the extra 'tensorflow'"):
            use(data)


@pytest.mark.usefixtures("tensorflow")
def test_with_tensorflow_its_builder_is_run_once(tmp_path, capsys, monkeypatch):
    built = []

    def build(name, **options):
        built.append(Builder(name, **options))
        return built[-1]

    monkeypatch.setattr(tfds_builders.tfds, "builder", build)
    assert prepare("mnist", tmp_path, "--from", "manual") == 0
    assert capsys.readouterr().out == "mnist 1.0.0: 4 training and 5 test images, 2 classes\n"
    assert str(built[0].manual_dir) == "manual"
    assert prepare("mnist", tmp_path) == 0
    assert len(built) == 1


@pytest.mark.usefixtures("tensorflow")
def test_files_for_a_data_set_that_is_prepared_already_are_said_to_be_unused(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tfds_builders.tfds, "builder", Builder)
    assert prepare("mnist", tmp_path) == 0
    caplog.clear()
    assert prepare("mnist", tmp_path, "--from", "manual") == 0
    place = str(tmp_path / "data/mnist/1.0.0")
    assert [record.getMessage() for record in caplog.records] == [
        f"mnist is prepared already; remove {place!r} to prepare it from 'manual'"
    ]


@pytest.mark.usefixtures("tensorflow")
def test_data_sets_without_labels_are_refused_before_they_are_downloaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tfds_builders.tfds, "builder", lambda name, **options: Builder(name, **options, label="text"))
    assert prepare("mnist", tmp_path) == 2
    assert "mnist has no feature 'label' of classes to train on" in capsys.readouterr().err
    assert not (tmp_path / "data/mnist").exists()


@pytest.mark.usefixtures("tensorflow")
def test_errors_of_tfds_become_one_sentence(tmp_path, capsys, monkeypatch):
    def fail(name, **options):
        raise AssertionError("Manual directory does not exist:\nput the files there.")

    monkeypatch.setattr(tfds_builders.tfds, "builder", fail)
    assert prepare("mnist", tmp_path) == 2
    message = capsys.readouterr().err
    assert message == "error: TFDS cannot prepare mnist: Manual directory does not exist: put the files there.\n"


def test_unknown_names(tmp_path, capsys):
    assert prepare("mnits", tmp_path) == 2
    assert "data.name is 'mnits': no such data set" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "food101"])
def test_ours_do_not_collide_with_theirs(tmp_path, name):
    # TFDS has builders of the same names: ours are registered nowhere, and lie in folders of another name.
    source = dataclasses.replace(source_of(np.zeros((6, 2, 2, 1), np.uint8)), name=name)
    before = tfds.list_builders(with_community_datasets=False)
    writing.prepare(source, tmp_path, quiet)
    assert tfds.list_builders(with_community_datasets=False) == before
    assert name in before
    assert [path.name for path in tmp_path.iterdir()] == [f"stepwise_{name}"]
