"""Folders of images: layouts, refusals, and what is read from them."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from data_files import folder, prepare_and_open, quiet, write_classes, write_image, write_splits
from PIL import Image

from stepwise_jax.data import datasets, progress, subsets
from stepwise_jax.data.dataset import Sizes
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig


@pytest.fixture
def root(tmp_path) -> Path:
    return write_splits(tmp_path / "root")


def test_train_and_test_folders(root):
    data = folder(root)
    assert datasets.sizes(data) == Sizes(6, 4, 2)
    dataset = prepare_and_open(data)
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
    dataset = prepare_and_open(folder(root))
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
    labels, ids = datasets.labels_and_ids(prepare_and_open(data), "test")
    assert np.bincount(labels).tolist() == [2, 2, 1]
    again, same = datasets.labels_and_ids(prepare_and_open(data), "test")
    assert (again.tolist(), same) == (labels.tolist(), ids)
    assert not set(ids) & set(datasets.labels_and_ids(prepare_and_open(data), "train")[1])


def test_another_fraction_is_prepared_beside(tmp_path):
    write_classes(tmp_path / "root", count=10)
    small = prepare_and_open(folder(tmp_path / "root", test_fraction=0.1))
    large = prepare_and_open(folder(tmp_path / "root", test_fraction=0.5))
    assert len(datasets.labels_and_ids(small, "test")[1]) == 2
    assert len(datasets.labels_and_ids(large, "test")[1]) == 10


def test_fraction_does_not_matter_to_a_test_folder(root):
    first = prepare_and_open(folder(root, test_fraction=0.1))
    assert datasets.open_dataset(folder(root, test_fraction=0.5)).builder.data_dir == first.builder.data_dir


def test_every_suffix_in_any_case(tmp_path):
    suffixes = (
        ".jpg",
        ".JPEG",
        ".jfif",
        ".jpe",
        ".Png",
        ".webp",
        ".BMP",
        ".gif",
        ".tif",
        ".TIFF",
        ".avif",
        ".jp2",
        ".ppm",
    )
    for name in ("cat", "dog"):
        for row, suffix in enumerate(suffixes):
            write_image(tmp_path / "root/train" / name / f"{row}{suffix}")
            write_image(tmp_path / "root/test" / name / f"{row}{suffix}")
    data = folder(tmp_path / "root")
    assert datasets.sizes(data) == Sizes(26, 26, 2)
    images = datasets.load(prepare_and_open(data), "train", 16, quiet).images
    assert images.shape == (26, 10, 12, 3)
    assert np.abs(images.astype(int) - (0, 255, 7)).max() < 8


def test_images_of_several_sizes_are_scaled_here(root):
    write_image(root / "train/cat/big.png", 50, (40, 30))
    dataset = prepare_and_open(folder(root))
    assert dataset.image_shape is None
    examples = datasets.load(dataset, "train", 16, quiet)
    assert examples.images.shape == (7, 16, 16, 3)
    big = examples.images[examples.ids.index("train/cat/big.png")]
    assert np.unique(big.reshape(-1, 3), axis=0).tolist() == [[50, 205, 7]]


def test_larger_images_are_scaled_down_here(root):
    examples = datasets.load(prepare_and_open(folder(root)), "test", 8, quiet)
    assert examples.images.shape == (4, 8, 8, 3)


@pytest.mark.parametrize("change", ["written", "added", "removed", "renamed"])
def test_a_changed_folder_is_prepared_again(root, change):
    data = folder(root)
    before = prepare_and_open(data)
    path = root / "train/cat/000.png"
    if change == "written":
        write_image(path, 222)
        os.utime(path, ns=(1, 1))
    elif change == "added":
        write_image(root / "train/cat/new.png")
    elif change == "removed":
        path.unlink()
    else:
        path.rename(path.with_name("other.png"))
    with pytest.raises(InputError, match="not prepared"):
        datasets.open_dataset(data)
    after = prepare_and_open(data)
    assert after.builder.data_dir != before.builder.data_dir
    assert len(datasets.labels_and_ids(after, "train")[1]) == {"added": 7, "removed": 5}.get(change, 6)


def test_manifest_depends_on_contents_and_not_on_times(root):
    def manifest():
        dataset = prepare_and_open(folder(root))
        (_, train), (_, test) = (datasets.labels_and_ids(dataset, split) for split in ("train", "test"))
        hashes = {split: datasets.split_hashes(dataset, split) for split in ("train", "test")}
        return subsets.manifest((), (), dataset, train, test, hashes)

    before = manifest()
    os.utime(root / "train/cat/000.png", ns=(1, 1))
    assert manifest() == before
    write_image(root / "train/cat/000.png", 222)
    assert manifest()["train"]["content_sha256"] != before["train"]["content_sha256"]
    assert manifest()["test"] == before["test"]


def test_clutter_is_ignored(root, caplog):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.png", ".hidden.jpg"):
        (root / "train/cat" / name).write_bytes(b"clutter")
    (root / "train/.cache").mkdir()
    (root / "README.txt").write_text("about")
    assert len(datasets.labels_and_ids(prepare_and_open(folder(root)), "train")[1]) == 6
    assert not caplog.records


def test_other_files_are_left_out_with_a_warning(root, caplog):
    caplog.set_level(logging.WARNING)
    (root / "train/cat/notes.txt").write_text("about cats")
    (root / "val").mkdir()
    datasets.prepare(folder(root), quiet)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
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
    assert "train/bird/001.png" in datasets.labels_and_ids(prepare_and_open(data), "train")[1]


def test_names_in_any_script(tmp_path):
    write_classes(tmp_path / "根", ("кот", "собака 🐶", 'c\'est "ça"'), 4)
    dataset = prepare_and_open(folder(tmp_path / "根"))
    assert dataset.class_names == ('c\'est "ça"', "кот", "собака 🐶")
    assert any(name.startswith("собака 🐶/") for name in datasets.labels_and_ids(dataset, "train")[1])


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
        if done and "storing" in what and not changed:
            changed.append(os.utime(root / "train/cat/000.png", ns=(5, 5)))

    data = folder(root)
    with pytest.raises(InputError, match="changed while"):
        datasets.prepare(data, touch)
    datasets.prepare(data, quiet)


def test_a_class_may_be_called_train(tmp_path):
    write_classes(tmp_path / "root", ("bus", "train"), 5)
    assert datasets.sizes(folder(tmp_path / "root")) == Sizes(8, 2, 2)


def test_a_class_may_be_called_train_and_another_test(tmp_path):
    write_classes(tmp_path / "root", ("test", "train"), 5)
    assert datasets.sizes(folder(tmp_path / "root")) == Sizes(8, 2, 2)


def test_class_of_one_image_stays_in_training(tmp_path):
    write_classes(tmp_path / "root", ("many",), 19)
    write_classes(tmp_path / "root", ("one",), 1)
    dataset = prepare_and_open(folder(tmp_path / "root"))
    assert np.bincount(datasets.labels_and_ids(dataset, "train")[0]).tolist() == [15, 1]
