"""Runs that are killed or stopped, and go on: the finished run is the same to the bit as one that never stopped.

The runs are processes of their own, of the real entry point; a test looks for the state of the workdir in which it
wants to strike, strikes, and asserts where the blow fell.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepwise_jax.workdir import record_file

ROOT = Path(__file__).parents[2]
FIELDS = {
    "data.image_size": "8",
    "model.width": "4",
    "model.blocks": "1",
    "plan.fractions": "0.3 0.6 1",
    "plan.batch_multipliers": "1 2 1",
    "plan.batch_size": "16",
    "plan.epochs_per_stage": "3",
    "plan.decay_every": "2",
    "plan.batch_statistics": "carried",
    "checkpoint.every_seconds": "0.4",
    "steps_per_call": "1",
}


def command(workdir: Path, data_dir: Path, **changes: str) -> list[str]:
    words = [sys.executable, "launch.py", "train", "configs/digits.py", "--workdir", str(workdir)]
    for name, value in (FIELDS | {"data.data_dir": str(data_dir)} | changes).items():
        words += [f"--{name}", *value.split(" ")]
    return words


def finish(words: list[str]) -> str:
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stderr


def strike(words: list[str], when: Callable[[], bool], with_signal: signal.Signals = signal.SIGKILL) -> int:
    """Starts a run, sends the signal as soon as `when()` holds, and returns the exit status."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=ROOT, stdout=quiet, stderr=quiet)
    try:
        deadline = time.monotonic() + 200
        while not when():
            assert process.poll() is None, "the run ended before the blow"
            assert time.monotonic() < deadline, "the moment for the blow never came"
            time.sleep(0.001)
        process.send_signal(with_signal)
        return process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()


def outcome(workdir: Path) -> tuple[str, tuple[dict, ...]]:
    summary = json.loads((workdir / "summary.json").read_text())
    return summary["state_sha256"], record_file.without_seconds(record_file.read_records(workdir).epochs)


def rows(workdir: Path) -> list[dict]:
    return list(record_file.read_records(workdir).epochs) if (workdir / "records.jsonl").exists() else []


def committed(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def saving(workdir: Path) -> list[Path]:
    return list((workdir / "checkpoints").glob("[0-9]*tmp*"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, data_dir):
    """A run that is never stopped; one for all the workers of a test run."""
    folder = tmp_path_factory.getbasetemp().parent / "undisturbed"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "run" / "summary.json").exists():
            finish(command(folder / "run", data_dir))
    return outcome(folder / "run")


# Every epoch is 26, 53 (in batches of 32) or 89 steps; a stage ends after 78, 156 and 423 steps.
STAGE_ENDS = (78, 156, 423)


def test_killed_in_the_middle_of_an_epoch_resumes_in_the_middle(tmp_path, data_dir, undisturbed):
    workdir = tmp_path / "run"
    words = command(workdir, data_dir, **{"checkpoint.every_seconds": "0.05"})
    strike(words, lambda: any(step not in (0, *STAGE_ENDS) and step > 156 for step in committed(workdir)))
    last = committed(workdir)[-1]
    assert (last - 156) % 89 != 0, "the checkpoint stands between epochs"
    stderr = finish(words)
    assert f"resuming after {last} of 423 updates" in stderr
    assert outcome(workdir) == undisturbed


def test_a_folder_whose_name_is_a_pattern_serves_as_any_other(tmp_path, data_dir, undisturbed):
    workdir = tmp_path / "sweep[1]*" / "lr[0.1]?"
    words = command(workdir, data_dir, **{"checkpoint.every_seconds": "0.05"})
    strike(words, lambda: any(step > 156 for step in committed(workdir)))
    last = committed(workdir)[-1]
    assert f"resuming after {last} of 423 updates" in finish(words)
    assert outcome(workdir) == undisturbed
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "x.png")
    for read in (["evaluate", str(workdir)], ["predict", str(workdir), str(tmp_path / "x.png")]):
        assert "damaged" not in finish([sys.executable, "launch.py", *read])


def test_killed_inside_a_save(tmp_path, data_dir, undisturbed):
    workdir = tmp_path / "run"
    words = command(workdir, data_dir, **{"checkpoint.every_seconds": "0.1"})
    strike(words, lambda: len(committed(workdir)) >= 2 and bool(saving(workdir)))
    assert saving(workdir), "no save was under way"
    good = committed(workdir)
    assert good
    stderr = finish(words)
    assert f"resuming after {good[-1]} of" in stderr
    assert not saving(workdir)
    assert outcome(workdir) == undisturbed


def test_killed_at_a_boundary(tmp_path, data_dir, undisturbed):
    """Just after a stage's last checkpoint is committed, so that the run goes on by crossing the boundary again."""
    workdir = tmp_path / "run"
    words = command(workdir, data_dir, **{"checkpoint.every_seconds": "1e9"})
    strike(words, lambda: STAGE_ENDS[0] in committed(workdir))
    assert committed(workdir) == [STAGE_ENDS[0]], "the next stage had saved already"
    assert f"resuming after {STAGE_ENDS[0]} of 423 updates" in finish(words)
    assert outcome(workdir) == undisturbed


def test_killed_at_a_boundary_before_its_checkpoint(tmp_path, data_dir, undisturbed):
    """After a stage's last epoch is on record, while the checkpoint that ends it is not; its last record is torn."""
    workdir = tmp_path / "run"
    words = command(workdir, data_dir, **{"checkpoint.every_seconds": "1e9"})
    strike(words, lambda: len(rows(workdir)) == 6)
    assert STAGE_ENDS[1] not in committed(workdir), "the checkpoint was there already"
    assert committed(workdir) == [STAGE_ENDS[0]]
    with open(workdir / "records.jsonl", "a") as file:
        file.write('{"kind": "epoch", "stage": 2, "ep')
    finish(words)
    assert outcome(workdir) == undisturbed
    lines = (workdir / "records.jsonl").read_text().splitlines()
    twice = [json.loads(line) for line in lines if json.loads(line)["kind"] == "epoch"]
    assert len(twice) == 9 + 3


def test_killed_before_anything_was_saved(tmp_path, data_dir, undisturbed):
    workdir = tmp_path / "run"
    words = command(workdir, data_dir, **{"checkpoint.every_seconds": "1e9"})
    strike(words, lambda: len(rows(workdir)) == 1)
    assert committed(workdir) == []
    finish(words)
    assert outcome(workdir) == undisturbed
    assert "no checkpoint is left, so the recorded epochs (1) are trained again" in str(
        record_file.read_records(workdir).events
    )


def test_a_signal_stops_with_a_checkpoint_and_75(tmp_path, data_dir, undisturbed):
    workdir = tmp_path / "run"
    words = command(workdir, data_dir, **{"checkpoint.every_seconds": "1e9"})
    status = strike(words, lambda: len(rows(workdir)) == 4, signal.SIGTERM)
    assert status == 75
    assert committed(workdir)[-1] not in STAGE_ENDS
    finish(words)
    assert outcome(workdir) == undisturbed


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, data_dir, undisturbed):
    workdir = tmp_path / "run"
    words = command(workdir, data_dir, **{"checkpoint.every_seconds": "0.2"})
    strike(words, lambda: len(committed(workdir)) >= 3 and rows(workdir)[-1]["stage"] == 3)
    newest = committed(workdir)[-1]
    flip_a_byte(workdir / "checkpoints" / str(newest))
    stderr = finish(words)
    assert f"checkpoint {newest} is damaged" in stderr
    assert outcome(workdir) == undisturbed


def flip_a_byte(checkpoint: Path) -> None:
    largest = max((path for path in checkpoint.rglob("*") if path.is_file()), key=os.path.getsize)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
