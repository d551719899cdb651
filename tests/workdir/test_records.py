"""What a run writes survives a kill at any byte, and reads back as one row for each epoch."""

import contextlib
import dataclasses
import json
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from stepwise_jax import formatting
from stepwise_jax.errors import InputError
from stepwise_jax.workdir import files, json_files, record_file
from stepwise_jax.workdir.record_file import RecordWriter
from stepwise_jax.workdir.records import TIME_KINDS, EndRecord, EpochRecord, EventRecord, StageRecord, StoredRecord
from stepwise_jax.workdir.runs import read_runs
from stepwise_jax.workdir.tensorboard import TensorBoard

CONTRACT = {"stage", "epoch", "step", "examples_seen", "updates", "learning_rate", "batch_size", "noise_scale"}
CONTRACT |= {"train_loss", "test_loss", "top1", "top5", "best_top1", "seconds"}
SPENT = {"train": 1.5, "input_wait": 0.1, "compile": 2.0, "evaluate": 0.25, "checkpoint": 0.0}


def epoch_record(stage: int = 1, epoch: int = 1, **changes: Any) -> EpochRecord:
    step = 100 * stage + 10 * epoch
    record = EpochRecord(
        stage=stage,
        stage_name="ABCDO"[stage - 1],
        epoch=epoch,
        step=step,
        examples_seen=24 * step,
        updates=step,
        learning_rate=0.001,
        batch_size=24,
        noise_scale=0.0119,
        train_loss=0.5,
        test_loss=0.6,
        top1=0.9,
        top5=0.99,
        best_top1=0.92,
        seconds=SPENT,
    )
    return dataclasses.replace(record, **changes)


def stage_record(stage: int = 1) -> StageRecord:
    return StageRecord(
        stage=stage,
        name="ABCDO"[stage - 1],
        fraction=0.2,
        examples=287,
        batch_size=24,
        learning_rate=0.001,
        milestones=(10,),
        epochs=20,
        updates=220,
        samples=5740,
        noise_scale=0.0120,
        noise_scale_exact=0.0110,
        split="train[:287]",
        sha256="ab" * 32,
    )


def write(workdir: Path, *rows: StoredRecord) -> None:
    with RecordWriter(workdir) as writer:
        for row in rows:
            writer.append(row)


def draw(folder: Path, *rows: EpochRecord) -> None:
    """What a process of a run writes for TensorBoard."""
    board = TensorBoard(folder / "tensorboard", pytest.fail)
    for row in (*rows, EndRecord()):
        board(row)


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


def test_a_file_cut_at_any_byte_reads_and_goes_on(tmp_path):
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


@pytest.mark.parametrize("damage", [b"\0\0\0\0\n", b'{"kind": "epoch"}\n', b"[1]\n", b'{"kind": ["epoch"]}\n'])
def test_a_damaged_last_line_is_passed_over_and_cut_off(tmp_path, damage):
    write(tmp_path, EventRecord("start", "", 1.0))
    with open(tmp_path / "records.jsonl", "ab") as file:
        file.write(damage)
    assert len(record_file.read_records(tmp_path).events) == 1
    write(tmp_path, EventRecord("resume", "", 2.0))
    assert [event["name"] for event in record_file.read_records(tmp_path).events] == ["start", "resume"]


@pytest.mark.parametrize("damage", ["{", "", '{"kind": "epoch", "stage": 1}', '{"kind": "unknown"}', "3"])
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


def events(folder: Path) -> list[Any]:
    """All TensorBoard events of a folder, in the order in which TensorBoard reads its files."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            # A length, its checksum, the event, its checksum.
            (size,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of what TensorBoard shows, after its rule for restarts."""
    shown = []
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            shown = [each for each in shown if each[1] < event.step]
        shown += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return shown


def test_tensorboard_has_every_quantity_by_step_and_by_examples(tmp_path):
    draw(tmp_path, epoch_record(1, 1), epoch_record(1, 2, top1=None, train_loss=float("nan")))
    by_step = scalars(tmp_path / "tensorboard")
    by_examples = scalars(tmp_path / "tensorboard" / "by_examples")
    first = {tag: value for tag, step, value in by_step if step == 110}
    assert first == pytest.approx(
        {
            "test/top1": 0.9,
            "test/top5": 0.99,
            "test/loss": 0.6,
            "train/loss": 0.5,
            "schedule/learning_rate": 0.001,
            "schedule/batch_size": 24,
            "schedule/noise_scale": 0.0119,
        }
    )
    assert {tag for tag, step, _ in by_step if step == 120} == first.keys() - {"test/top1", "train/loss"}
    assert by_examples == [(f"by_examples/{tag}", 24 * step, value) for tag, step, value in by_step]


def test_tensorboard_shows_each_epoch_once_after_a_resume(tmp_path):
    draw(tmp_path, epoch_record(1, 1, top1=0.1), epoch_record(1, 2, top1=0.2), epoch_record(1, 3, top1=0.3))
    draw(tmp_path, epoch_record(1, 2, top1=0.5), epoch_record(1, 3, top1=0.75))
    for folder, size in (("tensorboard", 1), ("tensorboard/by_examples", 24)):
        shown = [(step, value) for tag, step, value in scalars(tmp_path / folder) if tag.endswith("test/top1")]
        assert shown == [(110 * size, pytest.approx(0.1)), (120 * size, 0.5), (130 * size, 0.75)]


def test_a_killed_process_loses_no_record(tmp_path):
    program = f"""
import os, signal
from pathlib import Path
from stepwise_jax.training.progress import RunLog
from tests.workdir.test_records import epoch_record
log = RunLog(Path({str(tmp_path)!r}), [])
for epoch in (1, 2, 3):
    log.record(epoch_record(1, epoch))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == -signal.SIGKILL
    assert len(record_file.read_records(tmp_path).epochs) == 3
    assert len(scalars(tmp_path / "tensorboard")) == 3 * 7


def test_json_documents_are_sorted_readable_and_read_back(tmp_path):
    path = tmp_path / "summary.json"
    json_files.write_json(path, {"b": [1, 2.5, None], "a": {"nan": float("nan"), "text": "ä"}, "c": (True,)})
    assert json_files.read_json(path) == {"a": {"nan": None, "text": "ä"}, "b": [1, 2.5, None], "c": [True]}
    assert path.read_text(encoding="utf-8").startswith('{\n  "a": {\n    "nan": null')


def test_a_path_that_is_no_text_is_read_back_as_it_was(tmp_path):
    path = tmp_path / "config.json"
    json_files.write_json(path, {"root": "photos/\udcff"})
    assert json_files.read_json(path) == {"root": "photos/\udcff"}
    write(tmp_path, EventRecord("start", "photos/\udcff"))
    assert record_file.read_records(tmp_path).events[0]["message"] == "photos/\udcff"


def test_a_write_that_fails_leaves_the_old_document(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    json_files.write_json(path, {"top1": 0.5})

    def fail(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        json_files.write_json(path, {"top1": 0.6})
    assert json_files.read_json(path) == {"top1": 0.5}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_json_that_is_missing_or_damaged_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"there is no config\.json in"):
        json_files.read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_bytes(b'{"seed": \xff')
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        json_files.read_json(tmp_path / "config.json")


def test_numbers_as_people_read_them():
    assert [formatting.format_percent(value) for value in (0.97222, 1.0, 0, None)] == [
        "97.22 %",
        "100.00 %",
        "0.00 %",
        "–",
    ]
    assert [formatting.format_duration(value) for value in (0.4, 59.6, 3661, 360000)] == [
        "0:00:00",
        "0:01:00",
        "1:01:01",
        "100:00:00",
    ]


def make_run(folder: Path) -> Path:
    write(folder, epoch_record())
    planned = ("fraction", "examples", "batch_size", "learning_rate", "epochs", "updates", "samples", "noise_scale")
    stages = [{"name": name, **dict.fromkeys(planned, 1)} for name in "ABCDO"]
    json_files.write_json(folder / "config.json", {"experiment": {}, "stages": stages})
    return folder


def test_runs_are_named_apart_and_read_once(tmp_path):
    folders = [make_run(tmp_path / name) for name in ("a/run", "b/run", "c")]
    runs = read_runs([*folders, folders[0], tmp_path / "a" / ".." / "c"])
    assert [run.name for run in runs] == ["a/run", "b/run", f"{tmp_path.name}/c"]
    assert [run.name for run in read_runs(folders[1:])] == ["run", "c"]
    assert runs[0].summary is None
    assert [stage["name"] for stage in runs[0].stages] == list("ABCDO")


def test_a_folder_that_is_no_run_or_has_no_epoch_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"there is no config\.json in .*: it is no run"):
        read_runs([tmp_path])
    json_files.write_json(tmp_path / "config.json", [])
    with pytest.raises(InputError, match="does not describe a run"):
        read_runs([tmp_path])
    json_files.write_json(tmp_path / "config.json", {"experiment": {}, "stages": []})
    write(tmp_path, EventRecord("start", ""))
    with pytest.raises(InputError, match="no finished epoch"):
        read_runs([tmp_path])


def test_records_and_what_shows_them_need_no_jax():
    program = "import sys, stepwise_jax.report.report, stepwise_jax.cli.display; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0
