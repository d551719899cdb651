"""The histograms of the training images are counted once, kept, and valid for the images that were counted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import quiet, source_of

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.placement import training_histograms
from stepwise_jax.data.prepared import writing
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.functional.preprocessing import channel_histograms


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch) -> list[Sequence[int]]:
    """The rows of each call that decodes images."""
    calls, make = [], datasets.make_image_reader

    def counting(dataset: Dataset, split: str, image_size: int, rows: Sequence[int]):
        calls.append(rows)
        return make(dataset, split, image_size, rows)

    monkeypatch.setattr(datasets, "make_image_reader", counting)
    return calls


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (9, 6, 6, 1), np.uint8)


def prepared(folder: Path, seed: int = 0) -> DataConfig:
    writing.prepare(source_of(images(seed)), folder, quiet)
    return DataConfig(name="stepwise_made", data_dir=str(folder), image_size=6, normalisation="dataset")


def find(data: DataConfig) -> np.ndarray:
    found = training_histograms(data, datasets.open_dataset(data))
    assert found is not None
    return found


def expected(data: DataConfig) -> np.ndarray:
    dataset = datasets.open_dataset(data)
    stored, rows = datasets.used_rows(data, dataset, "train")
    return channel_histograms(datasets.load(dataset, stored, data.image_size, quiet, rows).images)


def test_images_are_decoded_for_them_once(tmp_path, decoded):
    data = prepared(tmp_path / "data")
    wanted = expected(data)
    for _ in range(2):
        np.testing.assert_array_equal(find(data), wanted)
    assert len(decoded) == 1


def test_those_of_images_that_are_decoded_anyway_are_kept_too(tmp_path, decoded):
    data = prepared(tmp_path / "data")
    dataset = datasets.open_dataset(data)
    wanted = training_histograms(data, dataset, datasets.load(dataset, "train", 6, quiet).images)
    np.testing.assert_array_equal(find(data), wanted)
    assert not decoded


def test_other_images_rows_and_sizes_have_others(tmp_path, decoded):
    data, other = prepared(tmp_path / "a"), prepared(tmp_path / "b", seed=1)
    cases = [data, other, replace(data, image_size=4), replace(data, validation_fraction=0.4)]
    for each in (*cases, *cases):
        np.testing.assert_array_equal(find(each), expected(each))
    assert len(decoded) == len(cases)
    # The files of one set beside the records of another: what is kept belongs to the records.
    for path in (tmp_path / "a").rglob("train.*.json"):
        path.rename(tmp_path / "b" / path.relative_to(tmp_path / "a"))
    np.testing.assert_array_equal(find(other), expected(other))


@pytest.mark.parametrize("content", [b"", b"{", b"[[1, 2]]", b"[]", b"null", b'"text"', b"[[1e400]]"])
def test_a_damaged_file_is_counted_again(tmp_path, decoded, content):
    data = prepared(tmp_path / "data")
    wanted = find(data)
    (path,) = (tmp_path / "data").rglob("train.*.json")
    whole = path.read_bytes()
    for damage in (content, whole.replace(b"[[", b"[[9", 1)):
        path.write_bytes(damage)
        np.testing.assert_array_equal(find(data), wanted)
        assert path.read_bytes() == whole


def test_they_are_in_the_cache_where_the_data_cannot_be_written(tmp_path, cache, decoded, monkeypatch):
    data = prepared(tmp_path / "data")
    refuse_below(tmp_path / "data", monkeypatch)
    wanted = find(data)
    assert len(list(cache.rglob("*.json"))) == 1
    np.testing.assert_array_equal(find(data), wanted)
    assert len(decoded) == 1


def refuse_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stepwise_jax.data.prepared import index

    write = index.atomic_write

    def refuse(path: Path):
        if folder in path.parents:
            raise PermissionError(13, "Permission denied")
        return write(path)

    monkeypatch.setattr(index, "atomic_write", refuse)


def test_other_normalisations_need_none(tmp_path, decoded):
    data = replace(prepared(tmp_path / "data"), normalisation="imagenet")
    assert training_histograms(data, datasets.open_dataset(data)) is None
    assert not decoded
