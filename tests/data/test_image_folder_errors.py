"""Folders of images that cannot be used, and the message for each."""

import os
from pathlib import Path

import pytest
from data_files import folder, quiet, write_classes, write_image, write_splits

import launch
from stepwise_jax.data import datasets
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig


@pytest.fixture
def root(tmp_path) -> Path:
    return write_splits(tmp_path / "root")


def refused(data: DataConfig, message: str) -> None:
    """Both counting and preparing raise the same error, and nothing is written."""
    with pytest.raises(InputError, match=message):
        datasets.sizes(data)
    with pytest.raises(InputError, match=message):
        datasets.prepare(data, quiet)
    assert not Path(str(data.data_dir)).exists()


@pytest.mark.parametrize("kept", [0, 0.5, 0.95])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_damaged_images_are_counted_and_named(root, suffix, kept):
    paths = [write_image(root / f"train/dog/bad{row}{suffix}", size=(60, 50)) for row in range(7)]
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
    write_image(tmp_path / "root/a.png")
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
    (root / "test").rename(root / "kept")
    refused(folder(root), r"has a folder train but none called test; besides train it has 'kept'")


def test_several_folders_that_may_be_the_test_images(root):
    (root / "test").rename(root / "val")
    write_classes(root / "valid")
    refused(folder(root), r"has a folder train but none called test; besides train it has 'val', 'valid'")


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
    write_image(root / "train" / name / "0.png")
    refused(folder(root), "must not start or end with a space")


def test_file_name_that_is_no_text(root):
    (root / "train/cat/000.png").rename(os.fsdecode(os.fsencode(root / "train/cat") + b"/\xff.png"))
    refused(folder(root), "not valid UTF-8")


def test_no_image_to_spare(tmp_path):
    write_classes(tmp_path / "root", ("a", "b", "c"), 1)
    refused(folder(tmp_path / "root"), r"data.test_fraction is 0.2: no class has an image to spare")


def test_unreadable_folder(root, monkeypatch):
    real = os.scandir

    def scan(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    refused(folder(root), r"dog' cannot be read: Permission denied")


def test_all_images_of_formats_that_are_not_read_are_counted(root):
    for name in ("train/cat/a.heic", "train/dog/b.svg", "test/cat/c.JXL"):
        (root / name).write_bytes(b"not read")
    refused(folder(root), r"has 3 images of unsupported formats: 'train/cat/a.heic', .*data.unreadable to 'skip'")


@pytest.mark.parametrize(
    ("place", "named"), [("photos", "photos"), ("data/photos", "data/photos"), ("a/b/set", "a/b/set")]
)
@pytest.mark.parametrize("stray", ["logo.png", "docs/figure.png"])
def test_a_copied_repository_says_which_folder_to_name(tmp_path, place, named, stray):
    write_image(tmp_path / "root" / stray)
    write_image(tmp_path / "root/.git/picture.png")
    write_classes(tmp_path / "root" / place)
    refused(folder(tmp_path / "root"), rf"; or name the folder '.*root/{named}', which has class folders$")


def test_a_copied_repository_with_train_and_test_folders(tmp_path):
    write_image(tmp_path / "root/logo.png")
    write_splits(tmp_path / "root/images")
    refused(folder(tmp_path / "root"), r"; or name the folder '.*root/images', which has class folders$")


def test_a_split_that_cannot_be_read_at_all(root):
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="no image of the split 'test' can be decoded"):
        datasets.prepare(folder(root, unreadable="skip"), quiet)
    assert not list(root.parent.glob("data/**/dataset_info.json"))


def test_verifying_and_preparing_need_the_same_folder(tmp_path, capsys):
    errors = []
    for words in ([], ["--verify"]):
        assert launch.main(["prepare", "image_folder", "--data-dir", str(tmp_path), *words]) == 2
        errors.append(capsys.readouterr().err)
    assert errors[0] == errors[1]
    assert "give it as --data.root FOLDER, or to prepare as --from FOLDER" in errors[0]
