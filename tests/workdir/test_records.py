"""Records survive a kill at any byte, and read back as one row for each epoch."""

import contextlib
import dataclasses
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.record_file import RecordWriter
from stepwise_jax.workdir.records import TIME_KINDS, EpochRecord, EventRecord, StageRecord
from tests.workdir.example_records import SPENT, epoch_record, stage_record, write

CONTRACT = {"stage", "epoch", "step", "examples_seen", "updates", "learning_rate", "batch_size", "noise_scale"}
CONTRACT |= {"train_loss", "test_loss", "top1", "top5", "best_top1", "seconds"}


def test_records_read_back_as_they_were_written(tmp_path):
    stage, epoch, event = stage_record(), epoch_record(), EventRecord("start", "a new run")
    write(tmp_path, event, stage, epoch)
    read = record_file.read_records(tmp_path)
    assert read.stages == ({**dataclasses.asdict(stage), "milestones": [10]},)
    assert read.epochs == (dataclasses.asdict(epoch),)
    assert read.events == (dataclasses.asdict(event),)


def test_an_epoch_has_the_fields_of_the_contract(tmp_path):
    write(tmp_path, epoch_record())
    row = json.loads((tmp_path / "records.jsonl").read_text())
    assert row["kind"] == "epoch"
    assert row.keys() >= CONTRACT
    assert tuple(row["seconds"]) == TIME_KINDS


def test_a_record_is_on_disk_before_append_returns(tmp_path):
    with RecordWriter(tmp_path) as writer:
        writer.append(epoch_record())
        assert len(record_file.read_records(tmp_path).epochs) == 1
        writer.sync()


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A quota on this process's files: what goes beyond is refused (EFBIG), the last write half way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_that_cannot_be_written_wait_in_order_and_none_is_lost(tmp_path):
    told: list[str] = []
    events = [EventRecord("start", f"number {number}", time=float(number)) for number in range(9)]
    with RecordWriter(tmp_path, told.append) as writer:
        with files_of_at_most(200):
            for event in events[:6]:
                writer.append(event)
            assert 0 < len(record_file.read_records(tmp_path).events) < 6
            assert (tmp_path / "records.jsonl").stat().st_size == 200
            with pytest.raises(OSError, match="File too large"):
                writer.sync()
        assert told == ["records.jsonl cannot be written (File too large): its lines wait in memory"]
        for event in events[6:]:
            writer.append(event)
        writer.sync()
        assert told[1:] == ["records.jsonl can be written again; nothing is lost"]
        assert record_file.read_records(tmp_path).events == tuple(dataclasses.asdict(event) for event in events)


def test_the_last_row_of_an_epoch_counts_and_rows_are_in_order(tmp_path):
    write(
        tmp_path, stage_record(1), stage_record(1), epoch_record(1, 1), epoch_record(2, 1, top1=0.1), epoch_record(1, 2)
    )
    write(tmp_path, stage_record(2), epoch_record(2, 1, top1=0.7))
    read = record_file.read_records(tmp_path)
    assert [(row["stage"], row["epoch"]) for row in read.epochs] == [(1, 1), (1, 2), (2, 1)]
    assert [row["stage"] for row in read.stages] == [1, 2]
    assert read.epochs[-1]["top1"] == 0.7


def test_a_file_cut_at_any_byte_is_read_and_appended_to(tmp_path):
    write(tmp_path, EventRecord("start", "ä new run", 1.0), EventRecord("done", "at its end", 2.0))
    path = tmp_path / "records.jsonl"
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        lines = whole[:size].count(b"\n")
        assert len(record_file.read_records(tmp_path).events) == lines
        write(tmp_path, EventRecord("resume", "going on", 3.0))
        assert [event["name"] for event in record_file.read_records(tmp_path).events] == [
            *["start", "done"][:lines],
            "resume",
        ]


DEEP, ZEROS = 100_000 * "[", 4096 * "\0"


@pytest.mark.parametrize(
    "damage",
    [
        *(b"\0\0\0\0\n", b'{"kind": "epoch"}\n', b"[1]\n", b'{"kind": ["epoch"]}\n'),
        pytest.param(ZEROS.encode(), id="a page of zeros"),
        pytest.param(DEEP.encode() + b"\n", id="deep"),
    ],
)
def test_a_damaged_last_line_is_passed_over_and_cut_off(tmp_path, damage):
    write(tmp_path, EventRecord("start", "", 1.0))
    with open(tmp_path / "records.jsonl", "ab") as file:
        file.write(damage)
    assert len(record_file.read_records(tmp_path).events) == 1
    write(tmp_path, EventRecord("resume", "", 2.0))
    assert [event["name"] for event in record_file.read_records(tmp_path).events] == ["start", "resume"]


# Of a stage whose number is something else, and of an epoch.
ODD_KEYS = [
    json.dumps({field.name: 1 for field in dataclasses.fields(record)} | {"kind": kind, kind: key})
    for kind, record in (("stage", StageRecord), ("epoch", EpochRecord))
    for key in ([1], {"1": 1}, None, "1", 1.5)
]


@pytest.mark.parametrize(
    "damage",
    [
        *("{", "", '{"kind": "epoch", "stage": 1}', '{"kind": "unknown"}', "3"),
        *ODD_KEYS,
        pytest.param(ZEROS, id="a page of zeros"),
        pytest.param(DEEP, id="deep"),
    ],
)
def test_a_damaged_line_in_the_middle_names_file_and_line(tmp_path, damage):
    good = json.dumps(dataclasses.asdict(EventRecord("start", "")))
    (tmp_path / "records.jsonl").write_text(f"{good}\n{damage}\n{good}\n")
    with pytest.raises(InputError, match=r"records\.jsonl, line 2: .*damaged"):
        record_file.read_records(tmp_path)


def test_no_records_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"there is no records\.jsonl in .*no run"):
        record_file.read_records(tmp_path)


def test_what_is_not_finite_becomes_null(tmp_path):
    write(tmp_path, epoch_record(train_loss=float("nan"), test_loss=float("inf")))
    row = record_file.read_records(tmp_path).epochs[0]
    assert (row["train_loss"], row["test_loss"]) == (None, None)


def test_identical_records_are_those_without_their_seconds(tmp_path):
    write(tmp_path / "a", epoch_record())
    write(tmp_path / "b", epoch_record(seconds={**SPENT, "train": 9.0}))
    a, b = (record_file.read_records(tmp_path / name).epochs for name in "ab")
    assert a != b
    assert record_file.without_seconds(a) == record_file.without_seconds(b)


def test_records_and_what_shows_them_need_no_jax():
    program = "import sys, stepwise_jax.report.report, stepwise_jax.cli.display; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0
