"""Reading records: in any order from any number of files, with few descriptors, through errors that pass."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import quiet, source_of

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.prepared import reading, records, writing
from stepwise_jax.errors import InputError, ReadError
from stepwise_jax.experiment.config import DataConfig

ROOT = Path(__file__).parents[2]
EXAMPLES = 300


def many_files(tmp_path: Path) -> DataConfig:
    """A prepared set whose splits have a file for each example."""
    source = source_of(np.arange(EXAMPLES * 4).reshape(EXAMPLES, 2, 2, 1).astype(np.uint8))
    swapped = {"train": source.splits["test"], "test": source.splits["train"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_SHARD_BYTES", 1)
        writing.prepare(dataclasses.replace(source, splits=swapped), tmp_path, quiet)
    return DataConfig(name="stepwise_made", data_dir=str(tmp_path), image_size=2)


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    writing.prepare(source_of(np.arange(9 * 4).reshape(9, 2, 2, 1).astype(np.uint8)), tmp_path, quiet)
    return datasets.open_dataset(DataConfig(name="stepwise_made", data_dir=str(tmp_path)))


class Flaky:
    """A reader whose first reads fail, and which then stays broken, as array_record's do."""

    def __init__(self, reader, failures: list[str]):
        self._reader, self._failures, self._error = reader, failures, None

    def read(self, positions):
        if self._failures and self._error is None:
            self._error = self._failures.pop(0)
        if self._error is not None:
            raise RuntimeError(self._error)
        return self._reader.read(positions)


@pytest.fixture
def failing(monkeypatch):
    """A function that makes the next reads fail with the messages that it is given."""

    def fail(*messages: str) -> list[str]:
        left = list(messages)
        make = records.open_reader
        monkeypatch.setattr(records, "open_reader", lambda path: Flaky(make(path), left))
        monkeypatch.setattr(records, "RETRY_PAUSES", (0.0, 0.0, 0.0))
        return left

    return fail


def message(code: int) -> str:
    return f"pread() failed: {os.strerror(code)}; reading /data/x.array_record-00000-of-00001"


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EMFILE])
def test_a_single_failed_read_is_tried_again(dataset, failing, code):
    expected = reading.RecordReader(dataset, "train").read([2, 0])
    left = failing(message(code), message(code))
    assert reading.RecordReader(dataset, "train").read([2, 0])[0][1:] == expected[0][1:]
    assert left == []


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EACCES, errno.ENOENT])
def test_an_error_of_the_system_that_stays_is_named_and_is_no_damage(dataset, failing, code):
    failing(*[message(code)] * 4)
    with pytest.raises(ReadError, match="cannot be read") as raised:
        reading.RecordReader(dataset, "train").read([0])
    assert f"({os.strerror(code)}): nothing is changed; try again" in str(raised.value)
    assert "damaged" not in str(raised.value)


def test_damage_is_not_tried_again(dataset, failing):
    left = failing(*["Corrupted Riegeli/records file: chunk data hash mismatch"] * 2)
    with pytest.raises(InputError, match="is damaged: remove it and prepare it again"):
        reading.RecordReader(dataset, "train").read([0])
    assert len(left) == 1


def test_records_come_in_the_order_asked_for_with_readers_that_are_closed_and_opened_again(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "open_reader_limit", lambda: 4)
    dataset = datasets.open_dataset(many_files(tmp_path))
    expected = [example["id"].decode() for example in dataset.builder.as_data_source("train")]
    reader = reading.RecordReader(dataset, "train")
    for seed in range(3):
        rows = np.random.default_rng(seed).permutation(len(reader))
        assert [name for _, _, name in reader.read(rows.tolist())] == [expected[row] for row in rows]
        assert len(os.listdir("/proc/self/fd")) < 100


_READ_ALL = """
import json, os, resource, sys
from pathlib import Path
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
from stepwise_jax.data import datasets
from stepwise_jax.data.prepared import reading
from stepwise_jax.experiment.config import DataConfig
dataset = datasets.open_dataset(DataConfig(name="stepwise_made", data_dir=sys.argv[1], image_size=2))
for path in Path(dataset.builder.data_dir).glob("*.index"):
    path.unlink()
readers = [reading.RecordReader(dataset, split) for split in ("train", "test")]
names = [[name for _, _, name in reader.read(range(len(reader)))] for reader in readers]
assert [tuple(each) for each in names] == [datasets.labels_and_ids(dataset, split)[1] for split in ("train", "test")]
print(json.dumps([len(each) for each in names]))
"""


def test_more_files_than_a_process_may_open_are_read(tmp_path):
    many_files(tmp_path)
    command = [sys.executable, "-c", _READ_ALL, str(tmp_path), "100"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [EXAMPLES - 4, 4]
