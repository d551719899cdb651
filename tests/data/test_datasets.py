"""Preparing, opening and loading data sets; the digits throughout, which are always available."""

import json
import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_files import quiet, source_of
from sklearn.datasets import load_digits

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Sizes
from stepwise_jax.data.prepared import writing
from stepwise_jax.data.splits import apportion, draw_test_split
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig

ROOT = Path(__file__).parents[2]


def digits(tmp_path: Path) -> DataConfig:
    return DataConfig(name="digits", data_dir=str(tmp_path / "data"))


def test_digits_are_prepared_and_loaded_as_scikit_learn_has_them(tmp_path):
    data = digits(tmp_path)
    datasets.prepare(data, quiet)
    dataset = datasets.open_dataset(data)
    assert dataset.name == "digits"
    assert dataset.version == "1.0.0"
    assert dataset.class_names == tuple("0123456789")
    assert dataset.image_shape == (8, 8, 1)
    scans: Any = load_digits()
    seen = []
    for split, count in (("train", 1437), ("test", 360)):
        examples = datasets.load(dataset, split, 32, quiet)
        rows = [int(name.removeprefix("digits_")) for name in examples.ids]
        assert examples.images.shape == (count, 8, 8, 1)
        assert examples.images.dtype == np.uint8
        assert examples.labels.dtype == np.int32
        np.testing.assert_array_equal(examples.images[..., 0], np.rint(scans.images[rows] * 255 / 16))
        np.testing.assert_array_equal(examples.labels, scans.target[rows])
        seen += rows
    assert sorted(seen) == list(range(1797))


def test_digits_test_split_is_fixed_and_by_class(tmp_path):
    data = digits(tmp_path)
    datasets.prepare(data, quiet)
    labels, ids = datasets.labels_and_ids(datasets.open_dataset(data), "test")
    # Change these only together with the version in digits.py: scores of older runs rest on this split.
    assert np.bincount(labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert ids[:3] == ("digits_0598", "digits_1512", "digits_0577")


def test_sizes_need_neither_data_nor_tfds():
    code = """
import sys
from stepwise_jax.data import datasets
from stepwise_jax.experiment.config import DataConfig
for name in ("digits", "cifar10", "cifar100", "food101", "birdsnap", "face_mask"):
    print(name, *vars(datasets.sizes(DataConfig(name=name))).values())
assert not {"tensorflow_datasets", "sklearn", "cv2", "jax"} & set(sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == [
        "digits 1437 360 10",
        "cifar10 50000 10000 10",
        "cifar100 50000 10000 100",
        "food101 75750 25250 101",
        "birdsnap 47386 2443 500",
        "face_mask 2509 639 2",
    ]


def test_sizes_of_digits_are_those_prepared(tmp_path):
    data = digits(tmp_path)
    datasets.prepare(data, quiet)
    splits = datasets.open_dataset(data).builder.info.splits
    assert datasets.sizes(data) == Sizes(splits["train"].num_examples, splits["test"].num_examples, 10)


def test_preparing_again_touches_nothing(tmp_path):
    data = digits(tmp_path)
    datasets.prepare(data, quiet)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def fail(*_):
        raise AssertionError("nothing to prepare")

    datasets.prepare(data, fail)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_preparing_says_nothing_but_by_progress(tmp_path, capfd, caplog):
    caplog.set_level(logging.WARNING)
    calls = []
    datasets.prepare(digits(tmp_path), lambda *call: calls.append(call))
    assert calls[0][:2] == (0, 1797)
    assert [call[:2] for call in calls].count((1797, 1797)) == 1
    assert calls[-1][:2] == (1797, 1797)
    assert "digits" in calls[0][2]
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_only_the_data_set_is_written(tmp_path):
    datasets.prepare(digits(tmp_path), quiet)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["stepwise_digits"]
    assert sorted(path.name for path in (tmp_path / "data/stepwise_digits").iterdir()) == [".lock", "1.0.0"]


def test_stock_tfds_reads_what_is_prepared(tmp_path):
    datasets.prepare(digits(tmp_path), quiet)
    builder: Any = tfds.builder_from_directory(tmp_path / "data/stepwise_digits/1.0.0")
    example = builder.as_data_source("test")[0]
    assert example["image"].shape == (8, 8, 1)
    assert example["id"] == b"digits_0598"
    assert builder.info.features["label"].names == list("0123456789")


@pytest.mark.parametrize("name", ["digitz", "image_foldr", "cifar1000"])
def test_unknown_name_gets_the_nearest_as_a_hint(tmp_path, name):
    data = DataConfig(name=name, data_dir=str(tmp_path))
    nearest = {"digitz": "digits", "image_foldr": "image_folder", "cifar1000": "cifar100"}[name]
    for use in (datasets.sizes, datasets.open_dataset, lambda data: datasets.prepare(data, quiet)):
        with pytest.raises(InputError, match=rf"data.name is '{name}'.*did you mean {nearest}"):
            use(data)


@pytest.mark.parametrize("name", ["", "..", "../x", "/", "*", "a b", "digits/", "x\0y", "digits/1.0.0", "x:1"])
def test_names_that_are_no_names_are_unknown(tmp_path, name):
    with pytest.raises(InputError, match=r"data.name is .*no such data set"):
        datasets.sizes(DataConfig(name=name, data_dir=str(tmp_path)))


def test_published_but_not_prepared(tmp_path):
    message = r"'cifar100': version 1.0.0 is not prepared under .*`python launch.py prepare cifar100`"
    with pytest.raises(InputError, match=message):
        datasets.prepare(DataConfig(name="cifar100", data_dir=str(tmp_path)), quiet)


def test_not_prepared(tmp_path):
    with pytest.raises(InputError, match=r"'digits': it is not prepared under"):
        datasets.open_dataset(digits(tmp_path))


def test_data_dir_that_is_a_file(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match=r"data.data_dir.*cannot write"):
        datasets.prepare(digits(tmp_path), quiet)


def test_data_dir_by_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    datasets.prepare(DataConfig(), quiet)
    assert datasets.open_dataset(DataConfig()).builder.data_path.is_relative_to(tmp_path / "elsewhere")


def test_lost_file_is_named(tmp_path):
    data = digits(tmp_path)
    datasets.prepare(data, quiet)
    lost = next((tmp_path / "data/stepwise_digits/1.0.0").glob("*-test.*"))
    lost.unlink()
    with pytest.raises(InputError, match=rf"lacks {lost.name}"):
        datasets.open_dataset(data)


@pytest.mark.parametrize("damage", ["flipped", "shortened", "emptied"])
def test_damaged_records_are_reported(tmp_path, damage):
    data = digits(tmp_path)
    datasets.prepare(data, quiet)
    path = next((tmp_path / "data/stepwise_digits/1.0.0").glob("*-train.*"))
    content = bytearray(path.read_bytes())
    content[30_000] ^= 1
    path.write_bytes({"flipped": content, "shortened": content[:-70_000], "emptied": b""}[damage])
    dataset = datasets.open_dataset(data)
    for read in (lambda: datasets.load(dataset, "train", 8, quiet), lambda: datasets.labels_and_ids(dataset, "train")):
        with pytest.raises(InputError, match=r"is damaged: remove it and prepare it again"):
            read()


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
def test_damaged_metadata_is_reported(tmp_path, name):
    data = digits(tmp_path)
    datasets.prepare(data, quiet)
    path = tmp_path / "data/stepwise_digits/1.0.0" / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"cannot be opened"):
        datasets.open_dataset(data)


def test_other_data_set_opens_by_its_tfds_name(tmp_path):
    images = np.arange(9 * 12, dtype=np.uint8).reshape(9, 2, 2, 3)
    writing.prepare(source_of(images), tmp_path, quiet)
    (tmp_path / "stepwise_made").rename(tmp_path / "theirs")
    data = DataConfig(name="theirs", data_dir=str(tmp_path))
    assert datasets.sizes(data) == Sizes(4, 5, 2)
    assert datasets.open_dataset(data).class_names == ("even", "odd")
    datasets.prepare(data, quiet)


def test_validation_images_serve_where_there_are_no_test_images(tmp_path):
    images = np.arange(9 * 12, dtype=np.uint8).reshape(9, 2, 2, 3)
    writing.prepare(source_of(images), tmp_path, quiet)
    data = DataConfig(name="stepwise_made", data_dir=str(tmp_path))
    expected = datasets.load(datasets.open_dataset(data), "test", 2, quiet)
    folder = tmp_path / "stepwise_made/1.0.0"
    for path in [*folder.glob("*-test.*"), folder / "dataset_info.json"]:
        content = path.read_bytes().replace(b'"test"', b'"validation"') if path.suffix == ".json" else path.read_bytes()
        path.unlink()
        path.with_name(path.name.replace("-test.", "-validation.")).write_bytes(content)
    dataset = datasets.open_dataset(data)
    assert "test" not in dataset.builder.info.splits
    assert datasets.sizes(data) == Sizes(4, 5, 2)
    found = datasets.load(dataset, "test", 2, quiet)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(
        datasets.make_image_reader(dataset, "test", 2)(np.array([3, 1])), expected.images[[3, 1]]
    )


def test_configurations_and_versions_by_name(tmp_path):
    writing.prepare(source_of(np.zeros((6, 2, 2, 1), np.uint8)), tmp_path, quiet)
    for place in ("theirs/one/1.0.0", "theirs/one/1.10.0", "theirs/one/1.9.0", "theirs/two/2.0.0"):
        shutil.copytree(tmp_path / "stepwise_made/1.0.0", tmp_path / place)

    def found(name):
        return datasets.open_dataset(DataConfig(name=name, data_dir=str(tmp_path))).builder.data_path

    assert found("theirs/one") == tmp_path / "theirs/one/1.10.0"
    assert found("theirs/one:1.9.0") == tmp_path / "theirs/one/1.9.0"
    with pytest.raises(InputError, match=r"prepared as one, two; name one as theirs/one"):
        found("theirs")
    with pytest.raises(InputError, match=r"no such data set"):
        found("theirs/one:3.0.0")
    shutil.rmtree(tmp_path / "theirs/two")
    assert found("theirs") == tmp_path / "theirs/one/1.10.0"


@pytest.mark.parametrize(("old", "new", "message"), [("image", "picture", "'image'"), ("label", "kind", "'label'")])
def test_data_set_without_images_or_labels(tmp_path, old, new, message):
    writing.prepare(source_of(np.zeros((6, 2, 2, 1), np.uint8)), tmp_path, quiet)
    path = tmp_path / "stepwise_made/1.0.0/features.json"
    path.write_text(path.read_text().replace(f'"{old}": {{', f'"{new}": {{'))
    with pytest.raises(InputError, match=rf"no feature {message}"):
        datasets.open_dataset(DataConfig(name="stepwise_made", data_dir=str(tmp_path)))


def test_tfrecord_files_are_refused(tmp_path):
    writing.prepare(source_of(np.zeros((6, 2, 2, 1), np.uint8)), tmp_path, quiet)
    path = tmp_path / "stepwise_made/1.0.0/dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match=r"tfrecord files: prepare it with file_format='array_record'"):
        datasets.open_dataset(DataConfig(name="stepwise_made", data_dir=str(tmp_path)))


def test_threads_may_read_one_data_set(tmp_path):
    data = digits(tmp_path)
    datasets.prepare(data, quiet)
    dataset = datasets.open_dataset(data)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: datasets.load(dataset, "train", 8, quiet), range(4)))
    for examples in loaded[1:]:
        np.testing.assert_array_equal(examples.images, loaded[0].images)
        assert examples.ids == loaded[0].ids


def test_apportion_is_proportional_and_spares_the_last_of_a_class():
    assert apportion([50, 30, 20], 10) == [5, 3, 2]
    assert apportion([3, 3, 3], 2) == [1, 1, 0]
    assert apportion([1, 1, 98], 20) == [0, 0, 20]
    assert apportion([2, 2], 4) == [1, 1]


def test_held_out_is_a_function_of_names_alone():
    names = [f"{label}/{row}" for label in "ab" for row in range(50)]
    labels = [0] * 50 + [1] * 50
    mask = draw_test_split(names, labels, 0.2)
    assert mask.sum() == 20
    assert mask[:50].sum() == 10
    again = draw_test_split(names[::-1], labels[::-1], 0.2)
    np.testing.assert_array_equal(again[::-1], mask)
