"""What TensorBoard shows of a run, also of one that was killed or resumed."""

import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.loggers.tensorboard import TensorBoard
from stepwise_jax.workdir.records import EndRecord, EpochRecord
from tests.workdir.example_records import epoch_record


def draw(folder: Path, *rows: EpochRecord) -> None:
    """What a process of a run writes for TensorBoard."""
    board = TensorBoard(folder / "tensorboard", pytest.fail)
    for row in (*rows, EndRecord()):
        board(row)


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
from tests.workdir.example_records import epoch_record
log = RunLog(Path({str(tmp_path)!r}), [])
for epoch in (1, 2, 3):
    log.record(epoch_record(1, epoch))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == -signal.SIGKILL
    assert len(record_file.read_records(tmp_path).epochs) == 3
    assert len(scalars(tmp_path / "tensorboard")) == 3 * 7
