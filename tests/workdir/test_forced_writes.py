"""A checkpoint's files are on the disk before it gets its name, also if the system interrupts their writing."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stepwise_jax.errors import SaveError
from stepwise_jax.workdir import writing
from stepwise_jax.workdir.checkpoints import Checkpoints
from tests.workdir.saved_states import POSITION, a_state, committed

ROOT = Path(__file__).parents[2]

_SAVE = """
import sys
from pathlib import Path
from stepwise_jax.workdir.checkpoints import Checkpoints
from tests.workdir.saved_states import POSITION, a_state
with Checkpoints(Path(sys.argv[1]), keep=2) as checkpoints:
    checkpoints.save(a_state(3), POSITION)
"""


def test_all_files_of_a_state_are_forced_to_the_disk_before_the_checkpoint_has_its_name(tmp_path, monkeypatch):
    forced: list[str] = []
    monkeypatch.setattr(writing, "_force", forced.append)
    with Checkpoints(tmp_path / "saved", keep=2) as checkpoints:
        checkpoints.save(a_state(3), POSITION)
    (folder,) = {path for path in forced if path.endswith(".orbax-checkpoint-tmp")}
    assert folder == forced[-1] == str(tmp_path / "saved/3.orbax-checkpoint-tmp/state.orbax-checkpoint-tmp")
    state = tmp_path / "saved/3/state"
    written = {str(path.relative_to(state)) for path in state.rglob("*")}
    # Orbax's mark that the checkpoint is complete comes later.
    assert {os.path.relpath(path, folder) for path in forced[:-1]} == written - {"commit_success.txt"}


def test_a_file_that_cannot_be_forced_to_the_disk_fails_the_save(tmp_path, monkeypatch):
    def fail(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(writing, "_force", fail)
    with (
        pytest.raises(SaveError, match="Input/output error"),
        Checkpoints(tmp_path / "saved", keep=2) as checkpoints,
    ):
        checkpoints.save(a_state(3), POSITION)
    assert committed(tmp_path / "saved") == []


def _strace(words: list[str], **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["strace", "-f", *words], cwd=ROOT, capture_output=True, text=True, timeout=300, **options)


def _can_trace() -> bool:
    return shutil.which("strace") is not None and _strace(["true"]).returncode == 0


@pytest.mark.skipif(not _can_trace(), reason="strace is not installed, or may not trace processes")
@pytest.mark.parametrize("every", [2, 5])
def test_a_save_whose_system_calls_are_interrupted_again_and_again_succeeds(every, tmp_path):
    calls = ["-e", "trace=writev,fsync", "-e", f"inject=writev,fsync:error=EINTR:when={every}+{every}"]
    command = [sys.executable, "-c", _SAVE, str(tmp_path / "saved")]
    done = _strace(["-o", str(tmp_path / "calls"), *calls, *command], env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert (done.returncode, done.stderr) == (0, "")
    # How many depends on the threads that share the work: each counts its own calls.
    assert "INJECTED" in (tmp_path / "calls").read_text()
    assert committed(tmp_path / "saved") == [3]
    with Checkpoints(tmp_path / "saved", keep=2) as checkpoints:
        restored = checkpoints.restore(a_state(0), pytest.fail)
    assert restored is not None
