"""An image folder is scanned once for each start, and again for the next one."""

import pytest
from conftest import TinyNet
from data_files import folder, prepare_and_open, quiet, write_image, write_splits

from stepwise_jax import train
from stepwise_jax.data import datasets
from stepwise_jax.data.source import forget_scans, scan_once
from stepwise_jax.data.sources import class_folders, image_folder
from stepwise_jax.experiment.config import DataConfig, ExperimentConfig, PlanConfig


@pytest.fixture
def scans(monkeypatch) -> list[DataConfig]:
    """The scans so far."""
    found = []
    scan = image_folder.source
    monkeypatch.setattr(image_folder, "source", lambda data, progress: found.append(data) or scan(data, progress))
    return found


def test_a_start_scans_a_folder_once(tmp_path, scans):
    data = folder(write_splits(tmp_path / "root"))
    with scan_once():
        assert datasets.sizes(data).train == 6
        dataset = prepare_and_open(data)
    assert len(scans) == 1
    assert len(datasets.labels_and_ids(dataset, "train")[1]) == 6


def test_counting_images_asks_for_the_status_of_none(tmp_path, monkeypatch):
    data = folder(write_splits(tmp_path / "root"))
    monkeypatch.setattr(class_folders, "_status", None)
    assert datasets.sizes(data).train == 6


def test_the_next_start_finds_what_was_added(tmp_path, scans):
    data = folder(write_splits(tmp_path / "root"))
    for count in (6, 7):
        with scan_once(), scan_once():
            datasets.prepare(data, quiet)
            assert datasets.sizes(data).train == count
        write_image(tmp_path / "root/train/cat/new.png", 9)
    assert len(scans) == 2


def test_what_is_forgotten_is_scanned_again(tmp_path, scans):
    data = folder(write_splits(tmp_path / "root"))
    with scan_once():
        datasets.sizes(data)
        forget_scans()
        datasets.sizes(data)
    assert len(scans) == 2


def test_a_run_opens_its_folder_with_one_scan(tmp_path, scans):
    data = folder(write_splits(tmp_path / "root"), image_size=8)
    plan = PlanConfig(strategy="baseline", fractions=(1.0,), batch_multipliers=(1.0,), batch_size=2, baseline_epochs=1)
    records = train(ExperimentConfig(data=data, plan=plan), TinyNet(2), workdir=tmp_path / "run")
    before = len(scans)
    for _ in records:
        pass
    assert len(scans) == before + 1
