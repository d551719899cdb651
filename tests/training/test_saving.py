"""Disks that are full, read-only or limited while a run saves: training continues, and only its end insists."""

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest
from conftest import Recorder

from stepwise_jax.errors import SaveError
from stepwise_jax.training import saving
from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.records import EpochRecord

ROOT = Path(__file__).parents[2]
# Python does not notice that a quota cuts a .pyc file short: it would stay behind in the environment and fail to load.
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}

# Orbax abandons its other writes where one fails, and Python tells of each when it is collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Spoiler(Recorder):
    """Does something to the disk when an epoch, (stage, epoch), is done."""

    def __init__(self, doings: dict[tuple[int, int], Callable[[], None]]):
        super().__init__()
        self._doings = doings

    def on_epoch(self, record: EpochRecord) -> None:
        super().on_epoch(record)
        self._doings.get((record.stage, record.epoch), lambda: None)()


class SmallDisk:
    """A file system of a megabyte that can be filled to its last byte."""

    def __init__(self, path: Path):
        self.path = path

    def fill(self) -> None:
        with open(self.path / "filling", "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))

    def free(self) -> None:
        (self.path / "filling").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield SmallDisk(path)
    # Lazily: threads of a save that failed may still hold a file.
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def locked_folder() -> Iterator[Callable[[Path], Callable[[], None]]]:
    """`lock(folder)` keeps everybody, root too, from writing into it; what it returns undoes that."""
    undo: list[Callable[[], None]] = []

    def lock(folder: Path) -> Callable[[], None]:
        def free() -> None:
            subprocess.run(["chattr", "-i", str(folder)], check=True)

        if subprocess.run(["chattr", "+i", str(folder)], capture_output=True).returncode:
            if os.geteuid() == 0:
                pytest.skip("no folder can be made read-only here for root")
            folder.chmod(0o500)
            undo.append(lambda: folder.chmod(0o700))
        else:
            undo.append(free)
        return undo[-1]

    yield lock
    for each in undo:
        with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
            each()


def committed(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def once_saved(workdir: Path, step: int, doing: Callable[[], object]) -> Callable[[], None]:
    """Does something when a checkpoint that is being written is whole."""

    def wait_and_do() -> None:
        deadline = time.monotonic() + 60
        while step not in committed(workdir):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        doing()

    return wait_and_do


# A stage ends after 8, 30 and 118 updates.


def test_training_outlives_a_full_disk_and_saves_when_there_is_room(train, tmp_path, disk):
    undisturbed = train(tmp_path / "undisturbed")
    display = Spoiler({(1, 1): disk.fill, (3, 1): disk.free})
    summary = train(disk.path / "run", display=display)
    assert summary["state_sha256"] == undisturbed["state_sha256"]
    messages = [message for message in display.messages if message.startswith("WARNING")]
    assert messages, display.messages
    assert all("the disk is full" in each or "No space left" in each for each in messages), messages
    assert "there is no checkpoint yet" in messages[0]
    assert "training continues" in messages[0]
    # Whether a line found room at the end of the file's last page depends on its length.
    waited = any("its lines wait in memory" in message for message in display.messages)
    assert ("records.jsonl can be written again; nothing is lost" in display.messages) == waited
    assert committed(disk.path / "run") == [118]
    ours, theirs = (
        record_file.read_records(folder / "undisturbed" if folder == tmp_path else folder / "run")
        for folder in (tmp_path, disk.path)
    )
    assert record_file.without_seconds(ours.epochs) == record_file.without_seconds(theirs.epochs)
    assert any(row["name"] == "unsaved" for row in theirs.events), "the warning is not on record"


def test_a_disk_that_stays_full_ends_in_one_sentence_and_keeps_the_last_good_checkpoint(train, tmp_path, disk):
    undisturbed = train(tmp_path / "undisturbed")
    with pytest.raises(SaveError) as caught:
        train(disk.path / "run", display=Spoiler({(2, 1): once_saved(disk.path / "run", 8, disk.fill)}))
    assert caught.value.status == 1
    assert "the last good checkpoint, after update 8, is kept" in str(caught.value)
    assert "run the same command to continue" in str(caught.value)
    assert committed(disk.path / "run") == [8]
    assert not (disk.path / "run" / "summary.json").exists()
    disk.free()
    display = Recorder()
    assert train(disk.path / "run", display=display)["state_sha256"] == undisturbed["state_sha256"]
    assert "resuming after 8 of 118 updates" in display.messages


def test_a_save_that_fails_at_every_step_is_tried_after_pauses_and_reported_once_a_minute(train, tmp_path, monkeypatch):
    undisturbed = train(tmp_path / "undisturbed")
    attempts, full = [], [True]
    sync = record_file.RecordWriter.sync

    def fail(writer: record_file.RecordWriter) -> None:
        attempts.append(time.monotonic())
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(writer)

    monkeypatch.setattr(record_file.RecordWriter, "sync", fail)
    display = Spoiler({(3, 1): full.clear})
    summary = train(tmp_path / "run", display=display, **{"checkpoint.every_seconds": 1e-9})
    assert summary["state_sha256"] == undisturbed["state_sha256"]
    messages = [message for message in display.messages if message.startswith("WARNING")]
    assert len(messages) == 1, messages
    assert "records.jsonl cannot be written (No space left on device): training continues" in messages[0]
    # Pauses of 1, 2, 4, ... seconds, beside the ends of stages; without them one attempt at each of 74 steps.
    assert len(attempts) < 20


def test_predictions_that_cannot_be_written_are_reported_and_written_later(train, tmp_path, disk):
    undisturbed = train(tmp_path / "undisturbed")
    train(disk.path / "run")
    for name in ("summary.json", "predictions.npz"):
        (disk.path / "run" / name).unlink()
    disk.fill()
    with pytest.raises(SaveError, match=r"training is done and saved; free some space, and run the same command"):
        train(disk.path / "run")
    disk.free()
    assert train(disk.path / "run")["state_sha256"] == undisturbed["state_sha256"]
    assert (disk.path / "run" / "predictions.npz").exists()


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free some space, and run"),
        (errno.EIO, "once that is remedied, run"),
    ],
)
def test_free_space_is_advised_only_where_the_disk_is_full(code, advice, train, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(record_file.RecordWriter, "sync", fail)
    with pytest.raises(SaveError, match=f"{advice} the same command to continue from there") as caught:
        train(tmp_path / "run")
    assert os.strerror(code) in str(caught.value)
    assert ("space" in str(caught.value)) == (code == errno.ENOSPC)


def test_training_outlives_a_read_only_folder(train, tmp_path, locked_folder):
    undisturbed = train(tmp_path / "undisturbed")
    folder, free = tmp_path / "run" / "checkpoints", []
    lock = once_saved(tmp_path / "run", 8, lambda: free.append(locked_folder(folder)))
    display = Spoiler({(2, 1): lock, (3, 1): lambda: free[0]()})
    assert train(tmp_path / "run", display=display)["state_sha256"] == undisturbed["state_sha256"]
    messages = [message for message in display.messages if message.startswith("WARNING")]
    assert len(messages) == 1
    assert "not permitted" in messages[0] or "Permission denied" in messages[0]
    assert "the last good checkpoint, after update 8, is kept" in messages[0]
    assert committed(tmp_path / "run") == [8, 118]


def test_a_read_only_folder_at_the_end_is_an_error(train, tmp_path, locked_folder):
    folder, free = tmp_path / "run" / "checkpoints", []
    lock = once_saved(tmp_path / "run", 30, lambda: free.append(locked_folder(folder)))
    with pytest.raises(SaveError, match=r"training is done, but the checkpoint cannot be written"):
        train(tmp_path / "run", display=Spoiler({(3, 1): lock}))
    assert committed(tmp_path / "run") == [8, 30]


def test_a_signal_that_finds_the_folder_read_only_says_what_is_lost(train, tmp_path, locked_folder):
    undisturbed = train(tmp_path / "undisturbed")
    folder, free = tmp_path / "run" / "checkpoints", []

    def lock_and_stop() -> None:
        free.append(locked_folder(folder))
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SaveError) as caught:
        train(tmp_path / "run", display=Spoiler({(2, 1): once_saved(tmp_path / "run", 8, lock_and_stop)}))
    assert str(caught.value).startswith("stopped by SIGTERM after 19 updates, which could not be saved; the last good")
    assert "after update 8" in str(caught.value)
    free[0]()
    assert train(tmp_path / "run")["state_sha256"] == undisturbed["state_sha256"]


def test_a_quota_ends_in_one_sentence_and_exit_status_1(tmp_path, data_dir):
    """RLIMIT_FSIZE refuses a file beyond its size as a quota does: EFBIG, in a process of its own."""
    words = [sys.executable, "launch.py", "train", "configs/digits.py", "--workdir", str(tmp_path / "run")]
    words += ["--data.data_dir", str(data_dir), "--data.image_size", "8", "--model.width", "32", "--model.blocks", "1"]
    words += ["--plan.batch_multipliers", "1", "--plan.batch_size", "128", "--plan.epochs_per_stage", "1"]
    words += ["--plan.decay_every", "1", "--plan.fractions", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    environment |= NO_BYTECODE

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, preexec_fn=limited
    )
    assert done.returncode == 1, done.stderr
    assert "WARNING: the checkpoint cannot be written (File too large): training continues" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: training is done, but the checkpoint cannot be written")
    free = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert free.returncode == 0, free.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["updates"] == 11


def test_a_state_is_finite_or_not():
    from tests.workdir.saved_states import a_state

    state = a_state(3)
    assert saving.is_finite(state)
    for bad in (jnp.inf, jnp.nan):
        assert not saving.is_finite(state._replace(batch_stats={"var": jnp.asarray([1.0, bad])}))


def test_preparing_data_beyond_a_quota_gets_one_sentence(tmp_path):
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    words = [sys.executable, "launch.py", "prepare", "digits", "--data-dir", str(tmp_path)]
    environment = os.environ | NO_BYTECODE
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, preexec_fn=limited
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: data.data_dir: cannot write")
    assert "File too large" in done.stderr
