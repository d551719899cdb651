"""Scoring a trained run again: from its last intact checkpoint, and without changing its folder."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TinyNet

from stepwise_jax.data import placement
from stepwise_jax.data.prepared import index
from stepwise_jax.errors import InputError, ReadError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.inference.trained import open_trained
from stepwise_jax.training import scoring
from stepwise_jax.training.measurements import evaluation
from stepwise_jax.workdir import lock, reading
from stepwise_jax.workdir.folder import parse_config, read_config
from tests.digits_run import config, damage_newest, damage_signature, listing, make_old, train


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory) -> Path:
    return train(config(data_dir), tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def test_evaluating_passes_over_a_damaged_checkpoint_says_so_and_changes_nothing(copy):
    damage_newest(copy)
    before = listing(copy)
    experiment, planned = parse_config(read_config(copy))
    scores = evaluation.evaluate(experiment, planned, TinyNet(), copy)
    assert (scores["updates"], scores["planned_updates"]) == (287 // 32, 52)
    assert scores["test_images"] == 360
    assert scores["damaged_checkpoints"] == [52]
    assert listing(copy) == before


def test_a_checkpoint_that_cannot_be_read_is_neither_passed_over_nor_changed(copy, monkeypatch):
    monkeypatch.setattr(reading, "RETRY_PAUSES", (0,))
    path = copy / "checkpoints" / "52" / "state" / "manifest.ocdbt"
    path.unlink()
    path.symlink_to(path)
    before = listing_of_links(copy)
    experiment, planned = parse_config(read_config(copy))
    for read in (
        lambda: evaluation.evaluate(experiment, planned, TinyNet(), copy),
        lambda: open_trained(copy, TinyNet()),
    ):
        with pytest.raises(ReadError, match="52 cannot be read"):
            read()
        assert listing_of_links(copy) == before
    (copy / "summary.json").unlink()
    with pytest.raises(ReadError, match="52 cannot be read"):
        train(config_of(copy), copy)
    assert (copy / "checkpoints" / "52").is_dir()


def listing_of_links(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def config_of(folder: Path) -> ExperimentConfig:
    return parse_config(read_config(folder))[0]


def test_a_folder_that_cannot_be_written_can_be_evaluated(copy, monkeypatch):
    def refuse(path: Any, flags: int, *arguments: Any, **names: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *arguments, **names)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)
    before = listing(copy)
    experiment, planned = parse_config(read_config(copy))
    with lock.shared_lock(copy):
        scores = evaluation.evaluate(experiment, planned, TinyNet(), copy)
    assert (scores["updates"], scores["planned_updates"], scores["damaged_checkpoints"]) == (52, 52, [])
    assert not lock.is_locked(copy)
    assert listing(copy) == before


def test_evaluating_without_the_recorded_examples_is_refused(copy):
    (copy / "subsets.json").unlink()
    with pytest.raises(InputError, match=r"there is no subsets\.json"):
        evaluation.evaluate(*parse_config(read_config(copy)), TinyNet(), copy)


def test_a_run_of_an_earlier_version_gets_its_preprocessing_by_being_evaluated(copy, data_dir):
    before = (copy / "preprocessing.json").read_bytes()
    make_old(copy)
    experiment, planned = parse_config(read_config(copy))
    evaluation.evaluate(experiment, planned, TinyNet(), copy)
    assert (copy / "preprocessing.json").read_bytes() == before


@pytest.mark.parametrize(
    "changes", [{"image_size": 17}, {"mean": [0.5, 0.1, 0.1]}, {"std": [1, 1, 1]}, {"classes": list("0123456798")}]
)
def test_evaluating_finds_a_signature_that_is_not_the_runs(copy, changes):
    damage_signature(**changes)(copy)
    with pytest.raises(InputError, match=r"preprocessing\.json does not describe the images of this run"):
        evaluation.evaluate(*parse_config(read_config(copy)), TinyNet(), copy)


def test_training_images_are_neither_decoded_nor_indexed(data_dir, tmp_path, monkeypatch):
    experiment = override_fields(config(data_dir), {"data.normalisation": "imagenet"})
    folder = train(experiment, tmp_path / "run")

    def refuse(*arguments: Any) -> None:
        assert "train" not in arguments

    for module, name in ((placement.datasets, "load"), (index, "find_index")):
        monkeypatch.setattr(module, name, after(refuse, getattr(module, name)))
    evaluation.evaluate(*parse_config(read_config(folder)), TinyNet(), folder)


def after(check: Callable[..., None], function: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*arguments: Any) -> Any:
        check(*arguments)
        return function(*arguments)

    return checked


def test_test_images_that_changed_are_refused(copy):
    path = copy / "subsets.json"
    path.write_text(path.read_text().replace('"count": 360', '"count": 359'))
    with pytest.raises(InputError, match="the data has changed"):
        evaluation.evaluate(*parse_config(read_config(copy)), TinyNet(), copy)


def test_evaluating_decodes_no_training_images(copy, monkeypatch):
    opened, open_split = [], placement.open_split

    def counting(data: Any, dataset: Any, split: str, *others: Any) -> placement.Split:
        opened.append(split)
        return open_split(data, dataset, split, *others)

    monkeypatch.setattr(scoring, "open_split", counting)
    monkeypatch.setattr(placement, "_count_values", None)
    experiment, planned = parse_config(read_config(copy))
    assert experiment.data.normalisation == "dataset"
    evaluation.evaluate(experiment, planned, TinyNet(), copy)
    assert opened == ["test"]
