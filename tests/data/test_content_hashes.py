"""Prepared copies of folders are told apart by the contents of the files, which are read once."""

import os
from pathlib import Path

import numpy as np
import pytest
from data_files import folder, quiet, write_image

import launch
from stepwise_jax.data import datasets
from stepwise_jax.data.sources import content_hashes
from stepwise_jax.experiment.config import DataConfig


def write_twins(root: Path, bright: str) -> Path:
    """Two classes, one of which is bright, in files whose names, sizes and times do not tell which one."""
    for name in ("cat", "dog"):
        for row in range(4):
            path = write_image(root / name / f"{row}.bmp", (200 if name == bright else 20) + row)
            os.utime(path, ns=(10**18, 10**18))
    return root


def config(root: Path, data_dir: Path) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), data_dir=str(data_dir))


def red_by_class(data: DataConfig) -> dict[str, int]:
    datasets.prepare(data, quiet)
    dataset = datasets.open_dataset(data)
    examples = datasets.load(dataset, "train", 16, quiet)
    names = enumerate(dataset.class_names)
    return {name: int(examples.images[examples.labels == label][..., 0].max()) for label, name in names}


def test_folders_that_differ_in_contents_alone_do_not_share_a_copy(tmp_path, capsys):
    first, second = write_twins(tmp_path / "a", "cat"), write_twins(tmp_path / "b", "dog")
    assert red_by_class(config(first, tmp_path / "data"))["cat"] > 190
    assert (
        launch.main(["prepare", "image_folder", "--verify", "--from", str(first), "--data-dir", str(tmp_path / "data")])
        == 0
    )
    words = ["prepare", "image_folder", "--verify", "--from", str(second), "--data-dir", str(tmp_path / "data")]
    assert launch.main(words) == 2
    assert "OK" not in capsys.readouterr().out.splitlines()[-1:]
    assert red_by_class(config(second, tmp_path / "data"))["dog"] > 190
    assert red_by_class(config(first, tmp_path / "data"))["cat"] > 190


def test_the_same_contents_elsewhere_and_later_share_a_copy(tmp_path):
    first, second = write_twins(tmp_path / "a", "cat"), write_twins(tmp_path / "b", "cat")
    for path in second.rglob("*.bmp"):
        os.utime(path, ns=(5, 5))
    datasets.prepare(config(first, tmp_path / "data"), quiet)
    opened = [datasets.open_dataset(config(root, tmp_path / "data")).builder.data_dir for root in (first, second)]
    assert opened[0] == opened[1]


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The files that were read to hash them."""
    monkeypatch.setattr(content_hashes, "_SETTLED_SECONDS", -60)
    names, real = [], content_hashes._hash_file

    def hash_file(root, file):
        names.append(file.id)
        return real(root, file)

    monkeypatch.setattr(content_hashes, "_hash_file", hash_file)
    return names


def test_an_unchanged_folder_is_read_once(tmp_path, read):
    data = folder(write_twins(tmp_path / "root", "cat"))
    datasets.prepare(data, quiet)
    assert len(read) == 8
    datasets.prepare(data, quiet)
    datasets.open_dataset(data)
    assert len(read) == 8


def test_a_file_rewritten_with_its_size_and_time_is_read_again(tmp_path, read):
    data = folder(write_twins(tmp_path / "root", "cat"))
    before = red_by_class(data)
    read.clear()
    for name in ("cat", "dog"):
        for row in range(4):
            path = tmp_path / "root" / name / f"{row}.bmp"
            status = path.stat()
            write_image(path, 100 + row)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert red_by_class(data) != before
    assert sorted(read) == [f"{name}/{row}.bmp" for name in ("cat", "dog") for row in range(4)]


def test_files_that_have_just_changed_are_not_remembered(tmp_path, read, monkeypatch):
    data = folder(write_twins(tmp_path / "root", "cat"))
    monkeypatch.setattr(content_hashes, "_SETTLED_SECONDS", 3600)
    datasets.prepare(data, quiet)
    datasets.open_dataset(data)
    assert len(read) == 16


def _remembered(data: DataConfig) -> Path:
    (path,) = (Path(str(data.data_dir)) / "stepwise_image_folder").glob("hashes.*.npz")
    return path


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_a_damaged_memory_is_forgotten(tmp_path, read, content):
    data = folder(write_twins(tmp_path / "root", "cat"))
    datasets.prepare(data, quiet)
    with np.load(_remembered(data)) as stored:
        assert set(stored["ids"].tobytes().decode().split("\0")) == set(read)
    _remembered(data).write_bytes(content)
    datasets.open_dataset(data)
    assert len(read) == 16


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("format", np.array(1)),
        ("ids", np.frombuffer(b"cat/0.bmp", np.uint8)),
        ("ids", np.zeros(0, np.uint8)),
        ("status", np.zeros((8, 3), np.int64)),
        ("status", np.zeros((8, 4))),
        ("hashes", np.zeros((8, 16), "U1")),
        ("hashes", np.zeros((8, 16), object)),
    ],
)
def test_a_memory_of_another_kind_is_forgotten(tmp_path, read, name, other):
    data = folder(write_twins(tmp_path / "root", "cat"))
    datasets.prepare(data, quiet)
    with np.load(_remembered(data)) as stored:
        fields = {field: stored[field] for field in stored.files}
    np.savez(_remembered(data), **{**fields, name: other})
    datasets.open_dataset(data)
    assert len(read) == 16


def test_only_files_that_are_new_or_changed_are_read(tmp_path, read):
    data = folder(write_twins(tmp_path / "root", "cat"))
    datasets.prepare(data, quiet)
    read.clear()
    calls = []
    (tmp_path / "root/cat/0.bmp").unlink()
    write_image(tmp_path / "root/cat/00.bmp", 77)
    write_image(tmp_path / "root/dog/3.bmp", 78)
    datasets.prepare(data, lambda *call: calls.append(call))
    assert sorted(read) == ["cat/00.bmp", "dog/3.bmp"]
    reading = [call for call in calls if "reading" in call[2]]
    assert reading[-1] == (2, 2, "image_folder: reading new and changed images")
    read.clear()
    datasets.prepare(data, quiet)
    assert read == []


def test_where_nothing_can_be_written_the_files_are_read_each_time(tmp_path, read):
    root = write_twins(tmp_path / "root", "cat")
    (tmp_path / "file").write_text("no folder")
    data = config(root, tmp_path / "file")
    for count in (8, 16):
        with pytest.raises(ValueError, match="not prepared"):
            datasets.open_dataset(data)
        assert len(read) == count
    np.testing.assert_array_equal([path.name for path in tmp_path.iterdir() if path.is_file()], ["file"])
