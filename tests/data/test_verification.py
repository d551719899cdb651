"""`prepare --verify`: what it accepts and what it reports."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cifar_files import binary_files
from data_files import prepared, quiet, source_of, write_classes, write_folder
from test_food101 import food_files

import launch
from stepwise_jax.data import datasets
from stepwise_jax.data.prepared import writing
from stepwise_jax.experiment.config import DataConfig


def verified(capsys, data_dir: Path, name: str, *words: str) -> tuple[int, str, str]:
    """Exit status, stdout, and the last line on stderr."""
    capsys.readouterr()
    status = launch.main(["prepare", name, "--verify", "--data-dir", str(data_dir), *words])
    out, err = capsys.readouterr()
    return status, out, (err.splitlines() or [""])[-1]


def test_intact_data_sets(tmp_path, capsys):
    prepared("cifar10", write_folder(tmp_path / "cifar", binary_files("cifar10")), tmp_path / "data")
    prepared("food101", write_folder(tmp_path / "food", food_files()), tmp_path / "data")
    datasets.prepare(DataConfig(name="digits", data_dir=str(tmp_path / "data")), quiet)
    for name, message in (
        ("cifar10", "cifar10 1.0.0: 30 training and 8 test images, 10 classes, OK\n"),
        ("food101", "food101 1.0.0: 15 training and 9 test images, 3 classes, OK\n"),
        ("digits", "digits 1.0.0: 1437 training and 360 test images, 10 classes, OK\n"),
    ):
        assert verified(capsys, tmp_path / "data", name)[:2] == (0, message)


def test_folder_of_images(tmp_path, capsys):
    write_classes(tmp_path / "root", count=5)
    words = ("image_folder", "--from", str(tmp_path / "root"))
    assert launch.main(["prepare", *words, "--data-dir", str(tmp_path / "data")]) == 0
    assert verified(capsys, tmp_path / "data", *words)[0] == 0


def test_verifying_prepares_nothing(tmp_path, capsys):
    for name in ("digits", "cifar10"):
        status, out, message = verified(capsys, tmp_path / "data", name)
        assert (status, out) == (2, "")
        assert "not prepared under" in message
    assert not (tmp_path / "data").exists()


def test_changed_images_are_found_and_their_split_named(tmp_path, capsys):
    images = np.arange(9 * 64, dtype=np.uint8).reshape(9, 8, 8, 1)
    other = images.copy()
    other[6, 3, 3] += 1
    writing.prepare(source_of(images, "digits"), tmp_path / "a", quiet)
    writing.prepare(source_of(other, "digits"), tmp_path / "b", quiet)
    folder = tmp_path / "a/stepwise_digits/1.0.0"
    assert verified(capsys, tmp_path / "a", "digits")[0] == 0
    shutil.copy(next((tmp_path / "b/stepwise_digits/1.0.0").glob("*-test.*")), folder)
    status, out, message = verified(capsys, tmp_path / "a", "digits")
    assert (status, out) == (2, "")
    assert f"{str(folder)!r} has changed since it was prepared: test has SHA-256 " in message
    assert "train has" not in message


def test_damaged_files_are_reported(tmp_path, capsys):
    datasets.prepare(DataConfig(name="digits", data_dir=str(tmp_path)), quiet)
    path = next((tmp_path / "stepwise_digits/1.0.0").glob("*-train.*"))
    content = bytearray(path.read_bytes())
    content[30_000] ^= 1
    path.write_bytes(content)
    status, _, message = verified(capsys, tmp_path, "digits")
    assert status == 2
    assert "is damaged: remove it and prepare it again" in message


def test_files_that_are_gone_are_reported(tmp_path, capsys):
    datasets.prepare(DataConfig(name="digits", data_dir=str(tmp_path)), quiet)
    path = next((tmp_path / "stepwise_digits/1.0.0").glob("*-train.*"))
    path.unlink()
    status, _, message = verified(capsys, tmp_path, "digits")
    assert status == 2
    assert f"lacks {path.name}" in message


@pytest.mark.parametrize("kept", [{}, {"class_names": ["even", "odd"]}])
def test_missing_hash_is_reported(tmp_path, capsys, kept):
    images = np.zeros((9, 8, 8, 1), np.uint8)
    writing.prepare(source_of(images), tmp_path, quiet)
    folder = tmp_path / "theirs/1.0.0"
    shutil.copytree(tmp_path / "stepwise_made/1.0.0", folder)
    (folder / "metadata.json").write_text(json.dumps(kept))
    status, _, message = verified(capsys, tmp_path, "theirs")
    assert status == 2
    assert "has no recorded hash of its images" in message
