"""Birdsnap: lists in the original format beside some of the images that they name."""

import logging
from pathlib import Path

import numpy as np
import pytest
from data_files import prepared, refused, write_image

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset, Sizes
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig

SPECIES = ("Acadian_Flycatcher", "Coopers_Hawk", "Acorn_Woodpecker")
TEST = ("Coopers_Hawk/0561.jpg", "Acorn_Woodpecker/1203.jpg", "Acadian_Flycatcher/7.jpg")
TRAIN = tuple(f"{species}/{number}.jpg" for species in SPECIES for number in (2000, 2001, 2002))


def write_lists(folder: Path, names=("species", "images", "test_images")) -> None:
    """As version 1.1 has them: fields parted by tabs, under a line of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
        "species": ["id\tcommon\tscientific\tdir"]
        + [f"{number}\t{name.replace('_', ' ')}\tAvis\t{name}" for number, name in enumerate(SPECIES, 1)],
        "images": ["url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1"]
        + [f"http://x/{name}\t0\t{name}\t{SPECIES.index(name.split('/')[0]) + 1}\t1\t2" for name in TRAIN + TEST],
        "test_images": ["path", *TEST],
    }
    for name in names:
        (folder / f"{name}.txt").write_text("\n".join(rows[name]) + "\n")


def write_birds(root: Path, below: str = "download/images", missing=(), lists=("species", "images", "test_images")):
    write_lists(root, lists)
    for row, name in enumerate(TRAIN + TEST):
        if name not in missing:
            write_image(root / below / name, 10 * row)
    return root


def found(dataset: Dataset, split: str) -> dict[str, str]:
    """Class names by id."""
    labels, ids = datasets.labels_and_ids(dataset, split)
    return {name: dataset.class_names[label] for name, label in zip(ids, labels, strict=True)}


def expected(names) -> dict[str, str]:
    return {name: name.split("/")[0] for name in names}


@pytest.mark.parametrize("below", ["download/images", "images", "."])
@pytest.mark.parametrize("lists", [("species", "images", "test_images"), ("test_images",), ("species", "test_images")])
def test_layouts_and_lists(tmp_path, below, lists):
    write_birds(tmp_path / "birdsnap", below, lists=lists)
    dataset = prepared("birdsnap", tmp_path / "birdsnap", tmp_path / "data")
    assert dataset.class_names == (SPECIES if "species" in lists else tuple(sorted(SPECIES)))
    assert found(dataset, "test") == expected(TEST)
    assert found(dataset, "train") == expected(TRAIN)


def test_from_the_folder_above(tmp_path):
    write_birds(tmp_path / "birdsnap")
    assert found(prepared("birdsnap", tmp_path, tmp_path / "data"), "test") == expected(TEST)


def test_images_that_are_gone_are_counted(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    write_birds(tmp_path / "b", missing=(TEST[0], TRAIN[0], TRAIN[1]))
    dataset = prepared("birdsnap", tmp_path / "b", tmp_path / "data")
    assert found(dataset, "test") == expected(TEST[1:])
    assert found(dataset, "train") == expected(TRAIN[2:])
    assert [record.getMessage() for record in caplog.records] == [
        "birdsnap: 1 of the 3 test images that the lists name are missing",
        "birdsnap: 2 of the 9 training images that the lists name are missing",
        "birdsnap: no test images of 1 of 3 classes: Coopers_Hawk",
        "birdsnap: not the published numbers, but 7 training images instead of 47,386, 2 test images instead of 2,443, "
        "3 classes instead of 500",
    ]


def test_species_of_which_all_images_are_gone_keep_their_class(tmp_path):
    gone = [name for name in TRAIN + TEST if name.startswith("Coopers_Hawk")]
    write_birds(tmp_path / "b", missing=gone)
    (tmp_path / "b/download/images/Coopers_Hawk").mkdir()
    dataset = prepared("birdsnap", tmp_path / "b", tmp_path / "data")
    assert dataset.class_names == SPECIES
    assert np.unique(datasets.labels_and_ids(dataset, "train")[0]).tolist() == [0, 2]


def test_images_in_no_list_are_left_out(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    write_birds(tmp_path / "b")
    write_image(tmp_path / "b/download/images/Coopers_Hawk/9999.jpg")
    (tmp_path / "b/download/images/Coopers_Hawk/log.txt").write_text("log")
    dataset = prepared("birdsnap", tmp_path / "b", tmp_path / "data")
    assert found(dataset, "train") == expected(TRAIN)
    assert caplog.records[0].getMessage() == (
        "birdsnap: left out files that are not images or are in no list: "
        "'Coopers_Hawk/log.txt', 'Coopers_Hawk/9999.jpg'"
    )


def test_training_and_plans_take_what_is_prepared(tmp_path):
    write_birds(tmp_path / "b")
    dataset = prepared("birdsnap", tmp_path / "b", tmp_path / "data")
    data = DataConfig(name="birdsnap", data_dir=str(tmp_path / "data"))
    assert datasets.sizes(data) == Sizes(9, 3, 3)
    assert datasets.open_dataset(data).builder.data_dir == dataset.builder.data_dir


def test_nothing_given(tmp_path):
    data = DataConfig(name="birdsnap", data_dir=str(tmp_path / "data"))
    message = r"birdsnap cannot be downloaded: give --from PATH, the folder with test_images.txt"
    with pytest.raises(InputError, match=message):
        datasets.prepare(data, lambda *_: None, fetch=True)
    with pytest.raises(InputError, match=r"`python launch.py prepare birdsnap --from PATH`"):
        datasets.open_dataset(data)


def test_no_list_of_test_images(tmp_path):
    write_birds(tmp_path / "b", lists=("species", "images"))
    refused("birdsnap", tmp_path / "b", tmp_path, r"is not birdsnap: it must hold test_images.txt")


def test_a_file_instead_of_a_folder(tmp_path):
    (tmp_path / "birdsnap.tgz").write_bytes(b"x")
    refused("birdsnap", tmp_path / "birdsnap.tgz", tmp_path, r"is not birdsnap: it must hold test_images.txt")


def test_no_images(tmp_path):
    write_lists(tmp_path / "b")
    refused("birdsnap", tmp_path / "b", tmp_path, r"holds no images: use images/SPECIES/\* beside test_images.txt")


def test_no_test_images(tmp_path):
    write_birds(tmp_path / "b", missing=TEST)
    refused("birdsnap", tmp_path / "b", tmp_path, r"there are no images in the split 'test'")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_images", "", r"test_images.txt' must start with a line of column names that includes 'path'"),
        ("test_images", "Coopers_Hawk/0561.jpg\n", r"test_images.txt' must start with a line"),
        ("images", "url\tmd5\npath\n", r"images.txt' must start with a line"),
        ("images", "url\tpath\nhttp://x\n", r"images.txt': the line 'http://x' has no column 'path'"),
        ("species", "id\tdir\n1\tCoopers_Hawk\n", r"species.txt' does not list the folders 'Acadian_Fly.*', 'Acorn_W"),
        ("species", "id\tdir\n1\tCoopers_Hawk\n2\tCoopers_Hawk\n", r"species.txt' does not list the folders"),
    ],
)
def test_lists_that_cannot_be_right(tmp_path, name, content, message):
    write_birds(tmp_path / "b")
    (tmp_path / f"b/{name}.txt").write_text(content)
    refused("birdsnap", tmp_path / "b", tmp_path, message)


def test_list_that_is_no_text(tmp_path):
    write_birds(tmp_path / "b")
    (tmp_path / "b/test_images.txt").write_bytes(b"path\n\xff\n")
    refused("birdsnap", tmp_path / "b", tmp_path, r"test_images.txt' cannot be read")


def test_unreadable_images_are_named(tmp_path):
    write_birds(tmp_path / "b")
    (tmp_path / "b/download/images" / TEST[0]).write_bytes(b"<html>Sorry, this photo is gone</html>")
    refused(
        "birdsnap", tmp_path / "b", tmp_path, r"1 image cannot be decoded completely: Coopers_Hawk/0561.jpg \(no image"
    )
