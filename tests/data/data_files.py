"""Small data sets that the tests write (arrays, folders of images, archives) and prepare."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.source import Source, SourceSplit
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig


def quiet(done: int, total: int, task: str) -> None:
    del done, total, task


def source_of(images: np.ndarray, name: str = "made") -> Source:
    """A source of arrays, its first four examples in "train" and the rest in "test", of two alternating classes."""
    ids = [f"made_{row}" for row in range(len(images))]
    splits = {
        "train": SourceSplit(tuple(ids[:4]), (0, 1, 0, 1)),
        "test": SourceSplit(tuple(ids[4:]), tuple(row % 2 for row in range(len(ids) - 4))),
    }
    shape = images.shape[1:]
    read = {key: images[row] for row, key in enumerate(ids)}.__getitem__
    return Source(
        name=name,
        version="1.0.0",
        class_names=("even", "odd"),
        origin="the test",
        splits=splits,
        read=read,
        array_shape=(shape[0], shape[1], shape[2]),
        size_bytes=images.nbytes,
    )


def write_image(path: Path, colour: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
    """A small image of one colour; its format by the name's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour, 255 - colour, 7)).save(path)
    return path


def write_classes(folder: Path, classes=("cat", "dog"), count=3, first=0) -> None:
    """Images of a colour each, which differ between folders written with another `first`."""
    for label, name in enumerate(classes):
        for row in range(count):
            write_image(folder / name / f"{row:03d}.png", 100 * label + first + row)


def prepare_and_open(data: DataConfig, fetch: bool = False) -> Dataset:
    datasets.prepare(data, quiet, fetch=fetch)
    return datasets.open_dataset(data)


def write_splits(root: Path) -> Path:
    """A train folder with 2 x 3 images and a test folder with 2 x 2."""
    write_classes(root / "train")
    write_classes(root / "test", count=2, first=50)
    return root


def folder(root: Path, **fields) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), data_dir=str(root.parent / "data"), **fields)


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def config_of(name: str, path: Path, data_dir: Path) -> DataConfig:
    return DataConfig(name=name, root=str(path), data_dir=str(data_dir))


def prepared(name: str, path: Path, data_dir: Path) -> Dataset:
    """The data set, prepared from `path` and opened."""
    return prepare_and_open(config_of(name, path, data_dir), fetch=True)


def refused(name: str, path: Path, tmp_path: Path, message: str) -> None:
    """Check that preparing fails with a message and writes nothing."""
    with pytest.raises(InputError, match=message):
        datasets.prepare(config_of(name, path, tmp_path / "data"), quiet, fetch=True)
    assert not list(tmp_path.glob("data/**/dataset_info.json"))
