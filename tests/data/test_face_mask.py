"""The mask data set: which folders are which class, how sources are merged, and how a test split is drawn."""

import logging

import numpy as np
import pytest
from data_files import prepared, refused, write_classes, write_image

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.sources import face_mask
from stepwise_jax.data.splits import draw_test_split

CLASSES = ("with_mask", "without_mask")


def ids(dataset: Dataset, split: str) -> set[str]:
    return set(datasets.labels_and_ids(dataset, split)[1])


def test_one_source_without_a_split(tmp_path):
    write_classes(tmp_path / "root", CLASSES, 10)
    dataset = prepared("face_mask", tmp_path / "root", tmp_path / "data")
    assert dataset.class_names == CLASSES
    # ceil(20 * 639 / 3148) images are held out, in proportion by class.
    assert np.bincount(datasets.labels_and_ids(dataset, "test")[0]).tolist() == [3, 2]
    assert np.bincount(datasets.labels_and_ids(dataset, "train")[0]).tolist() == [7, 8]
    for split in ("train", "test"):
        labels, names = datasets.labels_and_ids(dataset, split)
        assert [CLASSES[label] for label in labels] == [name.split("/")[0] for name in names]


def test_three_sources_with_spellings_of_their_own(tmp_path):
    write_classes(tmp_path / "root/observations", ("with_mask", "without_mask"), 4)
    write_classes(tmp_path / "root/kaggle/data", ("WithMask", "WithoutMask"), 5)
    write_classes(tmp_path / "root/third", ("Mask", "no-mask"), 6)
    dataset = prepared("face_mask", tmp_path / "root", tmp_path / "data")
    labels = np.concatenate([datasets.labels_and_ids(dataset, split)[0] for split in ("train", "test")])
    assert np.bincount(labels).tolist() == [15, 15]
    names = ids(dataset, "train") | ids(dataset, "test")
    assert {name.rsplit("/", 2)[0] for name in names} == {"observations", "kaggle/data", "third"}
    labels, found = datasets.labels_and_ids(dataset, "train")
    for label, name in zip(labels, found, strict=True):
        assert CLASSES[label] == ("without_mask" if "o" in name.split("/")[-2].lower() else "with_mask")


def test_split_of_the_user(tmp_path):
    write_classes(tmp_path / "root/train", CLASSES, 4)
    write_classes(tmp_path / "root/test", CLASSES, 2)
    dataset = prepared("face_mask", tmp_path / "root", tmp_path / "data")
    assert len(ids(dataset, "train")) == 8
    assert ids(dataset, "test") == {f"test/{name}/00{row}.png" for name in CLASSES for row in range(2)}


def test_split_within_sources(tmp_path):
    for name in ("one", "two"):
        write_classes(tmp_path / "root" / name / "train", CLASSES, 4)
        write_classes(tmp_path / "root" / name / "test", CLASSES, 2)
    dataset = prepared("face_mask", tmp_path / "root", tmp_path / "data")
    assert (len(ids(dataset, "train")), len(ids(dataset, "test"))) == (16, 8)


def test_the_papers_numbers_are_drawn_from_the_papers_images():
    names = [f"with_mask/{row}.jpg" for row in range(1314)] + [f"without_mask/{row}.jpg" for row in range(1834)]
    labels = [0] * 1314 + [1] * 1834
    mask = draw_test_split(names, labels, face_mask._TEST_FRACTION)
    assert mask.sum() == 639
    assert (~mask).sum() == 2509


def test_numbers_are_compared_with_the_papers(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    write_classes(tmp_path / "root", CLASSES, 10)
    (tmp_path / "root/with_mask/about.txt").write_text("about")
    prepared("face_mask", tmp_path / "root", tmp_path / "data")
    assert [record.getMessage() for record in caplog.records] == [
        "face_mask: left out files that are not images: 'with_mask/about.txt'",
        "face_mask: not the published numbers, but 15 training images instead of 2,509, 5 test images instead of 639",
    ]


def test_one_class_alone(tmp_path):
    write_classes(tmp_path / "root", ("with_mask",), 4)
    refused("face_mask", tmp_path / "root", tmp_path, r"has no images in folders called without_mask: use with_mask/")


def test_images_of_neither_class(tmp_path):
    write_classes(tmp_path / "root", (*CLASSES, "mask_weared_incorrect"), 4)
    refused("face_mask", tmp_path / "root", tmp_path, r"mask_weared_incorrect/000.png' is in a folder of neither")


def test_images_in_no_folder(tmp_path):
    write_classes(tmp_path / "root", CLASSES, 4)
    write_image(tmp_path / "root/0.jpg")
    refused("face_mask", tmp_path / "root", tmp_path, r"root/0.jpg' is in a folder of neither class")


def test_images_below_a_class(tmp_path):
    write_classes(tmp_path / "root", CLASSES, 4)
    write_image(tmp_path / "root/with_mask/deeper/0.jpg")
    refused("face_mask", tmp_path / "root", tmp_path, r"is in a subfolder of a class folder, not directly in one")


def test_a_split_of_some_images_alone(tmp_path):
    write_classes(tmp_path / "root/one/test", CLASSES, 2)
    write_classes(tmp_path / "root/two", CLASSES, 2)
    message = r"some images are below train or test, and some are not: 'two/with_mask/000.png', 'two"
    refused("face_mask", tmp_path / "root", tmp_path, message)


def test_a_test_folder_alone(tmp_path):
    write_classes(tmp_path / "root/test", CLASSES, 2)
    refused("face_mask", tmp_path / "root", tmp_path, r"there are no images in the split 'train'")


def test_a_file(tmp_path):
    (tmp_path / "masks.zip").write_bytes(b"PK")
    refused("face_mask", tmp_path / "masks.zip", tmp_path, r"masks.zip' is not a folder: use with_mask/")


@pytest.mark.parametrize("name", ["mask", "train"])
def test_the_folder_itself_may_be_called_anything(tmp_path, name):
    write_classes(tmp_path / name, CLASSES, 10)
    assert len(ids(prepared("face_mask", tmp_path / name, tmp_path / "data"), "train")) == 15
