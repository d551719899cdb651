"""Folders of images: layouts, refusals, and what is read from them."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepwise_jax.data import datasets, progress, subsets
from stepwise_jax.data.dataset import Dataset, Sizes
from stepwise_jax.data.prepared import reading
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig


def quiet(done, total, what):
    del done, total, what


def write(path: Path, colour: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
    """A small image of one colour; its format by the name's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 255 - colour, 7)).save(path)
    return path


def write_classes(folder: Path, classes=("cat", "dog"), count=3) -> None:
    for label, name in enumerate(classes):
        for row in range(count):
            write(folder / name / f"{row:03d}.png", 100 * label + row)


@pytest.fixture
def root(tmp_path) -> Path:
    """A train folder with 2 x 3 images and a test folder with 2 x 2."""
    write_classes(tmp_path / "root/train")
    write_classes(tmp_path / "root/test", count=2)
    return tmp_path / "root"


def folder(root: Path, **fields) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), data_dir=str(root.parent / "data"), **fields)


def prepared(data: DataConfig) -> Dataset:
    datasets.prepare(data, quiet)
    return datasets.open_dataset(data)


def refused(data: DataConfig, told: str) -> None:
    """Both counting and preparing tell the same, and nothing is written."""
    with pytest.raises(InputError, match=told):
        datasets.sizes(data)
    with pytest.raises(InputError, match=told):
        datasets.prepare(data, quiet)
    assert not Path(str(data.data_dir)).exists()


def test_train_and_test_folders(root):
    data = folder(root)
    assert datasets.sizes(data) == Sizes(6, 4, 2)
    dataset = prepared(data)
    assert dataset.name == "image_folder"
    assert dataset.class_names == ("cat", "dog")
    assert dataset.image_shape == (10, 12, 3)
    examples = datasets.load(dataset, "train", 16, quiet)
    assert examples.images.shape == (6, 10, 12, 3)
    assert set(examples.ids) == {f"train/{name}/{row:03d}.png" for name in ("cat", "dog") for row in range(3)}
    for image, label, name in zip(examples.images, examples.labels, examples.ids, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(root / name)))
        assert dataset.class_names[label] == name.split("/")[1]


def test_original_bytes_are_kept(root):
    dataset = prepared(folder(root))
    for record in dataset.builder.as_data_source("test", decoders={"image": _skip()}):
        assert record["image"] == (root / record["id"].decode()).read_bytes()


def _skip():
    import tensorflow_datasets as tfds

    return tfds.decode.SkipDecoding()


def test_split_is_drawn_by_class_where_there_is_none(tmp_path):
    write_classes(tmp_path / "root", ("a", "b"), 10)
    write_classes(tmp_path / "root", ("c",), 5)
    data = folder(tmp_path / "root", test_fraction=0.2)
    assert datasets.sizes(data) == Sizes(20, 5, 3)
    labels, ids = reading.labels_and_ids(prepared(data), "test")
    assert np.bincount(labels).tolist() == [2, 2, 1]
    again, same = reading.labels_and_ids(prepared(data), "test")
    assert (again.tolist(), same) == (labels.tolist(), ids)
    assert not set(ids) & set(reading.labels_and_ids(prepared(data), "train")[1])


def test_another_fraction_is_prepared_beside(tmp_path):
    write_classes(tmp_path / "root", count=10)
    small = prepared(folder(tmp_path / "root", test_fraction=0.1))
    large = prepared(folder(tmp_path / "root", test_fraction=0.5))
    assert len(reading.labels_and_ids(small, "test")[1]) == 2
    assert len(reading.labels_and_ids(large, "test")[1]) == 10


def test_fraction_does_not_matter_to_a_test_folder(root):
    first = prepared(folder(root, test_fraction=0.1))
    assert datasets.open_dataset(folder(root, test_fraction=0.5)).builder.data_dir == first.builder.data_dir


def test_every_suffix_in_any_case(tmp_path):
    for name in ("cat", "dog"):
        for row, suffix in enumerate((".jpg", ".JPEG", ".Png", ".webp", ".BMP")):
            write(tmp_path / "root/train" / name / f"{row}{suffix}")
            write(tmp_path / "root/test" / name / f"{row}{suffix}")
    data = folder(tmp_path / "root")
    assert datasets.sizes(data) == Sizes(10, 10, 2)
    assert datasets.load(prepared(data), "train", 16, quiet).images.shape == (10, 10, 12, 3)


def test_images_of_several_sizes_are_scaled_here(root):
    write(root / "train/cat/big.png", 50, (40, 30))
    dataset = prepared(folder(root))
    assert dataset.image_shape is None
    examples = datasets.load(dataset, "train", 16, quiet)
    assert examples.images.shape == (7, 16, 16, 3)
    big = examples.images[examples.ids.index("train/cat/big.png")]
    assert np.unique(big.reshape(-1, 3), axis=0).tolist() == [[50, 205, 7]]


def test_larger_images_are_scaled_down_here(root):
    examples = datasets.load(prepared(folder(root)), "test", 8, quiet)
    assert examples.images.shape == (4, 8, 8, 3)


@pytest.mark.parametrize("change", ["written", "added", "removed", "renamed"])
def test_a_changed_folder_is_prepared_again(root, change):
    data = folder(root)
    before = prepared(data)
    path = root / "train/cat/000.png"
    if change == "written":
        write(path, 222)
        os.utime(path, ns=(1, 1))
    elif change == "added":
        write(root / "train/cat/new.png")
    elif change == "removed":
        path.unlink()
    else:
        path.rename(path.with_name("other.png"))
    with pytest.raises(InputError, match="not prepared"):
        datasets.open_dataset(data)
    after = prepared(data)
    assert after.builder.data_dir != before.builder.data_dir
    assert len(reading.labels_and_ids(after, "train")[1]) == {"added": 7, "removed": 5}.get(change, 6)


def test_proof_tells_contents_and_not_times(root):
    def proof():
        dataset = prepared(folder(root))
        (_, train), (_, test) = (reading.labels_and_ids(dataset, split) for split in ("train", "test"))
        return subsets.manifest((), (), dataset, train, test)

    before = proof()
    os.utime(root / "train/cat/000.png", ns=(1, 1))
    assert proof() == before
    write(root / "train/cat/000.png", 222)
    assert proof()["train"]["content_sha256"] != before["train"]["content_sha256"]
    assert proof()["test"] == before["test"]


def test_clutter_is_passed_over(root, caplog):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.png", ".hidden.jpg"):
        (root / "train/cat" / name).write_bytes(b"clutter")
    (root / "train/.cache").mkdir()
    (root / "README.txt").write_text("about")
    assert len(reading.labels_and_ids(prepared(folder(root)), "train")[1]) == 6
    assert not caplog.records


def test_other_files_are_left_out_with_a_warning(root, caplog):
    caplog.set_level(logging.WARNING)
    (root / "train/cat/notes.txt").write_text("about cats")
    (root / "val").mkdir()
    datasets.prepare(folder(root), quiet)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "data.root: left out 1 file that is not an image: 'train/cat/notes.txt'",
        "data.root: only train and test are read, not 'val'",
    ]
    datasets.prepare(folder(root), quiet)
    assert len(caplog.records) == 2


def test_symbolic_links_are_followed(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write_classes(elsewhere, ("bird",), 2)
    (root / "train/bird").symlink_to(elsewhere / "bird")
    (root / "train/cat/link.png").symlink_to(elsewhere / "bird/000.png")
    link = tmp_path / "link"
    link.symlink_to(root)
    data = DataConfig(name="image_folder", root=str(link), data_dir=str(tmp_path / "data"))
    assert datasets.sizes(data) == Sizes(9, 4, 3)
    assert "train/bird/001.png" in reading.labels_and_ids(prepared(data), "train")[1]


def test_names_in_any_script(tmp_path):
    write_classes(tmp_path / "根", ("кот", "собака 🐶", 'c\'est "ça"'), 4)
    dataset = prepared(folder(tmp_path / "根"))
    assert dataset.class_names == ('c\'est "ça"', "кот", "собака 🐶")
    assert any(name.startswith("собака 🐶/") for name in reading.labels_and_ids(dataset, "train")[1])


@pytest.mark.parametrize("kept", [0, 0.5, 0.95])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_damaged_images_are_counted_and_named(root, suffix, kept):
    paths = [write(root / f"train/dog/bad{row}{suffix}", size=(60, 50)) for row in range(7)]
    for path in paths:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(
        InputError, match=r"^data.root is '.*root': 7 images cannot be decoded completely: train/dog/bad\d.* and 2 more"
    ) as error:
        datasets.prepare(folder(root), quiet)
    assert str(error.value).count("train/dog/bad") == 5
    assert not list(root.parent.glob("data/**/dataset_info.json"))


def test_all_images_damaged(root):
    for path in root.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r": 10 images cannot be decoded completely"):
        datasets.prepare(folder(root), quiet)


def test_broken_link_is_refused(root):
    (root / "train/cat/gone.png").symlink_to(root / "nowhere.png")
    refused(folder(root), r"gone.png.*cannot be read: No such file")


def test_pipe_is_refused(root):
    os.mkfifo(root / "train/cat/pipe.png")
    refused(folder(root), r"pipe.png' is named like an image but is not a file")


def test_links_in_a_circle_end(root):
    (root / "train/cat/again").symlink_to(root / "train/cat")
    refused(folder(root), r"is in a subfolder of a class folder")


def test_image_that_is_lost_while_preparing(root, monkeypatch):
    data = folder(root)
    real = Path.read_bytes

    def read(path):
        if path.name == "001.png" and "train" in path.parts:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(InputError, match=r": 2 images cannot .*train/cat/001.png \(Permission denied\)"):
        datasets.prepare(data, quiet)


def test_image_that_changes_while_preparing_is_refused(root, monkeypatch):
    monkeypatch.setattr(progress, "_INTERVAL_SECONDS", 0)
    changed = []

    def touch(done, total, what):
        if done and not changed:
            changed.append(os.utime(root / "train/cat/000.png", ns=(5, 5)))

    data = folder(root)
    with pytest.raises(InputError, match="changed while"):
        datasets.prepare(data, touch)
    datasets.prepare(data, quiet)


def test_root_not_given(tmp_path):
    refused(DataConfig(name="image_folder", data_dir=str(tmp_path / "data")), "data.root is not set")


def test_root_missing(tmp_path):
    refused(folder(tmp_path / "nowhere"), r"data.root is '.*nowhere': there is no such folder")


def test_root_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    refused(folder(tmp_path / "file"), "must be a folder")


def test_root_is_empty(tmp_path):
    (tmp_path / "root").mkdir()
    refused(folder(tmp_path / "root"), "has no class folders")


def test_images_without_classes(tmp_path):
    write(tmp_path / "root/a.png")
    refused(folder(tmp_path / "root"), r"images outside any class folder, such as 'a.png'")


def test_one_class(tmp_path):
    write_classes(tmp_path / "root", ("cat",))
    refused(folder(tmp_path / "root"), r"only one class \('cat'\)")


def test_class_without_images(root):
    (root / "train/bird").mkdir()
    (root / "train/bird/notes.txt").write_text("none yet")
    refused(folder(root), r"class folder '.*bird' holds no images")


def test_test_classes_that_training_lacks(root):
    write_classes(root / "test", ("bird", "fish"), 1)
    refused(folder(root), r"test has classes that are missing in train: 'bird', 'fish'")


def test_train_without_test(root):
    (root / "test").rename(root / "val")
    refused(folder(root), r"has a folder train but none called test; besides train it has 'val'")


def test_a_class_may_be_called_train(tmp_path):
    write_classes(tmp_path / "root", ("bus", "train"), 5)
    assert datasets.sizes(folder(tmp_path / "root")) == Sizes(8, 2, 2)


def test_a_class_may_be_called_train_and_another_test(tmp_path):
    write_classes(tmp_path / "root", ("test", "train"), 5)
    assert datasets.sizes(folder(tmp_path / "root")) == Sizes(8, 2, 2)


@pytest.mark.parametrize("name", ["Train", "training"])
def test_splits_by_another_name_are_not_taken_for_classes(tmp_path, name):
    write_classes(tmp_path / "root" / name)
    write_classes(tmp_path / "root/validation")
    refused(folder(tmp_path / "root"), r"000.png' is in a subfolder of a class folder")


def test_formats_that_are_not_read(root):
    (root / "train/cat/photo.HEIC").write_bytes(b"heic")
    refused(folder(root), r"photo.HEIC' is an image of an unsupported format")


@pytest.mark.parametrize("name", [" cat", "cat ", "c\nat"])
def test_class_names_that_cannot_be_kept(root, name):
    write(root / "train" / name / "0.png")
    refused(folder(root), "must not start or end with a space")


def test_file_name_that_is_no_text(root):
    (root / "train/cat/000.png").rename(os.fsdecode(os.fsencode(root / "train/cat") + b"/\xff.png"))
    refused(folder(root), "not valid UTF-8")


def test_no_image_to_spare(tmp_path):
    write_classes(tmp_path / "root", ("a", "b", "c"), 1)
    refused(folder(tmp_path / "root"), r"data.test_fraction is 0.2: no class has an image to spare")


def test_class_of_one_image_stays_in_training(tmp_path):
    write_classes(tmp_path / "root", ("many",), 19)
    write_classes(tmp_path / "root", ("one",), 1)
    dataset = prepared(folder(tmp_path / "root"))
    assert np.bincount(reading.labels_and_ids(dataset, "train")[0]).tolist() == [15, 1]


def test_unreadable_folder(root, monkeypatch):
    real = os.scandir

    def scan(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    refused(folder(root), r"dog' cannot be read: Permission denied")
