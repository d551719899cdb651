"""The index of a split: what it holds, when it is valid, where it is kept, and that a start reads no record."""

import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyNet
from data_files import quiet, source_of

from stepwise_jax import train
from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.prepared import index, writing
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig, ExperimentConfig, PlanConfig


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/stepwise-jax/indexes"


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (9, 4, 4, 1), np.uint8)


def prepared(tmp_path: Path, seed: int = 0) -> Path:
    writing.prepare(source_of(images(seed)), tmp_path / "data", quiet)
    return tmp_path / "data/stepwise_made/1.0.0"


def opened(folder: Path) -> Dataset:
    return datasets.open_dataset(DataConfig(name=folder.parent.name, data_dir=str(folder.parent.parent)))


def contents(found: index.SplitIndex) -> tuple[list[int], tuple[str, ...], str]:
    return found.labels.tolist(), found.ids, found.content_sha256


@pytest.fixture
def unreadable(monkeypatch):
    """A function after which records cannot be read."""
    return lambda: monkeypatch.setattr(index, "RecordReader", None)


@pytest.mark.parametrize("split", ["train", "test"])
def test_prepare_writes_the_index_that_the_records_give(tmp_path, unreadable, split):
    dataset = opened(prepared(tmp_path))
    expected = contents(index.read_index(dataset, split, quiet))
    examples = datasets.load(dataset, split, 4, quiet)
    unreadable()
    assert contents(index.find_index(dataset, split)) == expected
    labels, ids = datasets.labels_and_ids(dataset, split)
    np.testing.assert_array_equal(labels, examples.labels)
    assert ids == examples.ids
    recorded = (dataset.builder.info.metadata or {})["content_sha256"][split]
    assert datasets.split_hashes(dataset, split)["content_sha256"] == recorded


def test_rows_are_those_of_the_whole_split(tmp_path):
    dataset = opened(prepared(tmp_path))
    labels, ids = datasets.labels_and_ids(dataset, "test")
    for rows in (range(1, 4), [0, 2, 3], range(0, 4, 2)):
        some_labels, some_ids = datasets.labels_and_ids(dataset, "test", rows)
        assert some_labels.tolist() == [labels[row] for row in rows]
        assert some_ids == tuple(ids[row] for row in rows)


def test_other_records_of_the_same_number_are_noticed(tmp_path):
    folder, other = prepared(tmp_path / "a"), prepared(tmp_path / "b", seed=1)
    before = datasets.split_hashes(opened(folder), "train")
    (name,) = (path.name for path in folder.glob("*-train.*"))
    shutil.copy(other / name, folder)
    after = datasets.split_hashes(opened(folder), "train")
    assert after["content_sha256"] != before["content_sha256"]
    # The order of the ids on disk depends on nothing else.
    assert after["labels_sha256"] == before["labels_sha256"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_index_is_made_anew_with_one_line(tmp_path, caplog, unreadable, damage):
    folder = prepared(tmp_path)
    path, expected = folder / "train.index", contents(index.find_index(opened(folder), "train"))
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes({"flipped": content, "cut": content[:50], "empty": b"", "foreign": b"\0" * 100}[damage])
    caplog.set_level(logging.WARNING)
    assert contents(index.find_index(opened(folder), "train")) == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"the index {str(path)!r} is damaged: it is made anew"
    ]
    unreadable()
    assert contents(index.find_index(opened(folder), "train")) == expected


def test_an_index_that_is_missing_is_made_once(tmp_path, unreadable):
    folder = prepared(tmp_path)
    expected = contents(index.find_index(opened(folder), "train"))
    (folder / "train.index").unlink()
    assert contents(index.find_index(opened(folder), "train")) == expected
    unreadable()
    assert contents(index.find_index(opened(folder), "train")) == expected


def test_nothing_is_written_among_the_files_of_others(tmp_path, cache, unreadable):
    folder = prepared(tmp_path)
    expected = contents(index.find_index(opened(folder), "test"))
    theirs = tmp_path / "data/theirs/1.0.0"
    shutil.copytree(folder, theirs, ignore=shutil.ignore_patterns("*.index"))
    files = sorted(theirs.iterdir())
    assert contents(index.find_index(opened(theirs), "test")) == expected
    assert sorted(theirs.iterdir()) == files
    (kept,) = cache.iterdir()
    assert kept.name.endswith(".test.index")
    unreadable()
    assert contents(index.find_index(opened(theirs), "test")) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder")
def test_the_index_of_a_read_only_folder_is_in_the_cache(tmp_path, cache):
    folder = prepared(tmp_path)
    (folder / "train.index").unlink()
    folder.chmod(0o555)
    try:
        index.find_index(opened(folder), "train")
    finally:
        folder.chmod(0o755)
    assert len(list(cache.iterdir())) == 1


def test_where_nothing_can_be_written_the_records_are_read(tmp_path, monkeypatch):
    folder = prepared(tmp_path)
    expected = contents(index.find_index(opened(folder), "train"))
    (folder / "train.index").unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index, "write_index", full)
    assert contents(index.find_index(opened(folder), "train")) == expected


def test_several_threads_make_one_index_at_once(tmp_path, unreadable):
    folder = prepared(tmp_path)
    expected = contents(index.find_index(opened(folder), "train"))
    (folder / "train.index").unlink()
    made = [opened(folder) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda dataset: contents(index.find_index(dataset, "train")), made))
    assert found == [expected] * 6
    unreadable()
    assert contents(index.find_index(opened(folder), "train")) == expected
    assert {path.name for path in folder.glob("*.index*")} == {"train.index", "test.index"}


def test_a_run_that_goes_on_notices_other_records(tmp_path):
    folder, other, run = prepared(tmp_path / "a"), prepared(tmp_path / "b", seed=1), tmp_path / "run"
    data = DataConfig(name="stepwise_made", data_dir=str(folder.parent.parent), image_size=4)
    plan = PlanConfig(strategy="baseline", fractions=(1.0,), batch_multipliers=(1.0,), batch_size=2, baseline_epochs=1)
    experiment = ExperimentConfig(data=data, plan=plan)
    list(train(experiment, TinyNet(2), workdir=run))
    (run / "summary.json").unlink()
    for path in other.glob("*-train.*"):
        shutil.copy(path, folder)
    with pytest.raises(InputError, match=r"subsets\.json does not record the examples of stepwise_made: the data has"):
        list(train(experiment, TinyNet(2), workdir=run))
