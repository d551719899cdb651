"""Folders of images as they come: validation images, two spellings of a name, images that cannot be read."""

import logging
from pathlib import Path

import numpy as np
import pytest
from data_files import folder, prepare_and_open, write_classes, write_image, write_splits

import launch
from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Sizes
from stepwise_jax.errors import InputError


@pytest.fixture
def root(tmp_path) -> Path:
    return write_splits(tmp_path / "root")


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_validation_images_serve_where_there_is_no_test_folder(root, name, caplog):
    caplog.set_level(logging.WARNING)
    (root / "test").rename(root / name)
    data = folder(root)
    assert datasets.sizes(data) == Sizes(6, 4, 2)
    _, ids = datasets.labels_and_ids(prepare_and_open(data), "test")
    assert all(each.startswith(f"{name}/") for each in ids)
    assert [record.getMessage() for record in caplog.records] == [
        f"data.root: the images of {name!r} are the test images"
    ]


def test_validation_images_serve_where_test_images_have_no_classes(root, caplog):
    caplog.set_level(logging.WARNING)
    (root / "test").rename(root / "val")
    write_image(root / "test/0.png")
    assert len(datasets.labels_and_ids(prepare_and_open(folder(root)), "test")[1]) == 4
    assert caplog.records[-1].getMessage() == "data.root: only train and val are read, not 'test'"


def test_validation_beside_train_and_test_is_not_used_and_said_to_be(root, caplog):
    caplog.set_level(logging.WARNING)
    write_classes(root / "validation", first=90)
    assert datasets.sizes(folder(root)) == Sizes(6, 4, 2)
    prepare_and_open(folder(root))
    assert caplog.records[-1].getMessage() == "data.root: only train and test are read, not 'validation'"


def test_two_spellings_of_a_name_are_one_class(root, caplog):
    caplog.set_level(logging.WARNING)
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write_image(root / "train" / composed / "0.png", 11)
    write_image(root / "train" / decomposed / "1.png", 12)
    write_image(root / "test" / composed / "2.png", 13)
    data = folder(root)
    assert datasets.sizes(data) == Sizes(8, 5, 3)
    dataset = prepare_and_open(data)
    assert dataset.class_names == (decomposed, "cat", "dog")
    assert np.bincount(datasets.labels_and_ids(dataset, "train")[0]).tolist() == [2, 3, 3]
    assert np.bincount(datasets.labels_and_ids(dataset, "test")[0]).tolist() == [1, 2, 2]
    assert [record.getMessage() for record in caplog.records] == [
        f"data.root: {decomposed!a} and {composed!a} are one class, whose name is spelled in two ways (NFC and NFD)"
    ]


def test_what_cannot_be_read_is_left_out_on_request(root, caplog):
    caplog.set_level(logging.WARNING)
    (root / "train/cat/bad.png").write_bytes(b"no image")
    (root / "train/cat/photo.heic").write_bytes(b"not read")
    data = folder(root, unreadable="skip")
    assert datasets.sizes(data) == Sizes(6, 4, 2)
    dataset = prepare_and_open(data)
    assert len(datasets.labels_and_ids(dataset, "train")[1]) == 6
    assert [record.getMessage() for record in caplog.records] == [
        "data.root: left out 1 image of a format that is not read: 'train/cat/photo.heic'",
        f"data.root is {str(root)!r}: 1 image cannot be decoded completely: train/cat/bad.png (no image, or of an "
        "unknown format); left out",
    ]
    (root / "train/cat/photo.heic").unlink()
    with pytest.raises(
        InputError, match=r"cannot be decoded completely: train/cat/bad.png .*data.unreadable to 'skip'"
    ):
        datasets.open_dataset(folder(root))


def test_prepare_takes_what_training_takes(root, capsys):
    (root / "train/cat/bad.png").write_bytes(b"no image")
    (root / "train/cat/copy.bmp").write_bytes(write_image(root.parent / "copy.bmp", 0).read_bytes())
    words = ["prepare", "image_folder", "--from", str(root), "--data-dir", str(root.parent / "data")]
    assert launch.main(words) == 2
    words += ["--data.unreadable", "skip"]
    assert launch.main([*words, "--data.duplicates", "refuse"]) == 2
    assert "data.duplicates is 'refuse': 2 images" in capsys.readouterr().err
    for more in ([], ["--verify"]):
        assert launch.main([*words, "--data.duplicates", "drop", *more]) == 0
        assert "6 training and 4 test images, 2 classes" in capsys.readouterr().out
