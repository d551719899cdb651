"""Writing data sets: order and shards on disk, interruptions, full disks, two processes at once."""

import dataclasses
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from data_files import quiet, source_of
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from stepwise_jax.data import datasets, disk
from stepwise_jax.data.prepared import writing
from stepwise_jax.data.source import SourceSplit
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.runtime import threads

ROOT = Path(__file__).parents[2]


def digits(tmp_path: Path) -> DataConfig:
    return DataConfig(name="digits", data_dir=str(tmp_path / "data"))


class _Generator(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS's own way from examples to files, whose order ours must have."""

    name = "stepwise_made"
    VERSION = tfds.core.Version("1.0.0")
    code_path = None
    url_infos = None

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"id": tfds.features.Text()}))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in ("train", "x")}

    def _generate_examples(self, split):
        for row in range(97):
            yield f"{split}/{row}", {"id": f"{split}/{row}"}


def test_order_on_disk_is_the_one_of_tfds(tmp_path):
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder: Any = _Generator(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare(download_config=config)
    for split in ("train", "x"):
        ids = tuple(f"{split}/{row}" for row in range(97))
        shards = writing._shards(split, SourceSplit(ids, (0,) * 97), 3)
        assert [len(shard) for shard in shards] == [33, 32, 32]
        expected = [example["id"].decode() for example in builder.as_data_source(split)]
        assert [ids[row] for row in np.concatenate(shards)] == expected


def test_several_shards_are_one_split(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_SHARD_BYTES", 100)
    images = np.arange(9 * 64, dtype=np.uint8).reshape(9, 8, 8, 1)
    source = source_of(images)
    writing.prepare(source, tmp_path, quiet)
    dataset = datasets.open_dataset(DataConfig(name="stepwise_made", data_dir=str(tmp_path)))
    # 4 and 5 images of 64 bytes: a small test split has few files, however large the training split is.
    counts = {name: len(split.shard_lengths) for name, split in dataset.builder.info.splits.items()}
    assert counts == {"train": 3, "test": 4}
    examples = datasets.load(dataset, "train", 8, quiet)
    assert sorted(examples.ids) == ["made_0", "made_1", "made_2", "made_3"]
    for image, name, label in zip(examples.images, examples.ids, examples.labels, strict=True):
        row = int(name.removeprefix("made_"))
        np.testing.assert_array_equal(image, images[row])
        assert label == row % 2


@pytest.mark.parametrize("kind", ["files", "arrays"])
def test_records_are_those_that_tfds_makes(kind, tmp_path):
    pixels = np.random.default_rng(3).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    source = source_of(pixels)
    if kind == "files":
        read = {
            name: cv2.imencode(".png", np.asarray(source.read(name)))[1].tobytes()
            for split in source.splits.values()
            for name in split.ids
        }
        source = dataclasses.replace(source, read=read.__getitem__, array_shape=None)
    writing.prepare(source, tmp_path, quiet)
    features: Any = tfds.builder_from_directory(tmp_path / "stepwise_made/1.0.0").info.features
    serializer = ExampleSerializer(features.get_serialized_info())
    for name, split in source.splits.items():
        (path,), (rows,) = tmp_path.rglob(f"*-{name}.array_record-*"), writing._shards(name, split, 1)
        records = ArrayRecordReader(str(path)).read_all()
        for row, record in zip(rows, records, strict=True):
            example = {"id": split.ids[row], "label": split.labels[row], "image": source.read(split.ids[row])}
            expected = serializer.get_tf_example(features.encode_example(example))
            # Protocol buffers do not fix the order of the features.
            assert type(expected).FromString(record) == expected


def test_the_same_images_give_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_SHARD_BYTES", 300)
    source = source_of(np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8, 1))
    for folder, workers in ((tmp_path / "one", 1), (tmp_path / "many", 7)):
        monkeypatch.setattr(threads, "usable_cores", lambda workers=workers: workers)
        monkeypatch.setattr(writing, "_MAX_CHUNK", workers)
        writing.prepare(source, folder, quiet)
    written = [sorted((tmp_path / name).rglob("*.array_record-*")) for name in ("one", "many")]
    assert len(written[0]) == 9
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]


def test_full_disk_is_reported_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match=r"has 0 MiB free, \d+ MiB are needed"):
        datasets.prepare(digits(tmp_path), quiet)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_prepared_on_and_nothing_of_others_removed(tmp_path, monkeypatch, code):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    others = tmp_path / "data/stepwise_digits/incomplete.another"
    others.mkdir(parents=True)
    datasets.prepare(digits(tmp_path), quiet)
    assert datasets.sizes(digits(tmp_path)).train == 1437
    assert others.is_dir()


def test_files_that_end_early_are_not_taken(tmp_path, monkeypatch):
    class Short:
        def __init__(self, path):
            del path

        def ok(self):
            return True

        def num_records(self):
            return 3

    monkeypatch.setattr(writing, "open_reader", Short)
    with pytest.raises(InputError, match=r"not written completely"):
        datasets.prepare(digits(tmp_path), quiet)
    assert not list(tmp_path.rglob("*1.0.0*"))


def test_interrupted_by_the_user_leaves_nothing(tmp_path):
    def interrupt(done, total, what):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        datasets.prepare(digits(tmp_path), interrupt)
    assert not list(tmp_path.rglob("*1.0.0*"))


_SLOW = """
import sys, time
from pathlib import Path
from typing import Any
import numpy as np
from stepwise_jax.data.prepared import writing
sys.path.insert(0, "tests/data")
from data_files import source_of
import dataclasses
source = source_of(np.zeros((40, 2, 2, 1), np.uint8))
def read(name):
    time.sleep(float(sys.argv[2]))
    return source.read(name)
print("ready", flush=True)
writing.prepare(dataclasses.replace(source, read=read), Path(sys.argv[1]), lambda *call: print(*call, flush=True))
"""


def _slow(folder: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _SLOW, str(folder), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_killed_preparation_leaves_nothing_to_open_and_can_be_restarted(tmp_path):
    process = _slow(tmp_path, 1.0)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("stepwise_made/incomplete.*/*train*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.glob("stepwise_made/incomplete.*"))
    with pytest.raises(InputError):
        datasets.open_dataset(DataConfig(name="stepwise_made", data_dir=str(tmp_path)))
    source = source_of(np.zeros((40, 2, 2, 1), np.uint8))
    writing.prepare(source, tmp_path, quiet)
    assert sorted(path.name for path in (tmp_path / "stepwise_made").iterdir()) == [".lock", "1.0.0"]


def test_two_at_once_work_once(tmp_path):
    processes = [_slow(tmp_path, 0.02) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("checking and storing" in output for output in outputs) == 1
    assert sorted(path.name for path in (tmp_path / "stepwise_made").iterdir()) == [".lock", "1.0.0"]
