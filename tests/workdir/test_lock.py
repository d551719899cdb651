"""Locks on a run's folder, also on file systems that have none."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.workdir import lock


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def no_locks(request, monkeypatch):
    """A file system without locks."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def start_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def name_owner(folder: Path, **changes: object) -> None:
    folder.mkdir()
    (folder / "lock").touch()
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": start_of(os.getpid())}
    (folder / "lock.owner").write_text(json.dumps(owner | changes))


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_without_locks_one_process_trains_and_others_are_refused(tmp_path, no_locks):
    run = tmp_path / "run"
    assert not lock.is_locked(run)
    for _ in range(2):
        with lock.exclusive_lock(run):
            assert lock.is_locked(run)
            for another in (lock.exclusive_lock, lock.shared_lock):
                expected = rf"is in use: .*process {os.getpid()} on {socket.gethostname()}: if it has ended, remove"
                with pytest.raises(InputError, match=expected), another(run):
                    pass
        assert not lock.is_locked(run)
        with lock.shared_lock(run):
            pass
    assert [path.name for path in run.iterdir()] == ["lock"]


def test_a_dead_owner_does_not_count(tmp_path, no_locks):
    name_owner(tmp_path / "run", pid=dead_process())
    name_owner(tmp_path / "another", started="1")
    for folder in (tmp_path / "run", tmp_path / "another"):
        assert not lock.is_locked(folder)
        with lock.exclusive_lock(folder):
            assert json.loads((folder / "lock.owner").read_text())["started"] == start_of(os.getpid())


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"host": 1, "pid": "x", "started": null}'])
def test_an_owner_of_which_nothing_is_known_counts(tmp_path, no_locks, text):
    name_owner(tmp_path / "run", host="elsewhere")
    if text is not None:
        (tmp_path / "run" / "lock.owner").write_text(text)
    assert lock.is_locked(tmp_path / "run")
    with (
        pytest.raises(InputError, match=r"is in use: .* if it has ended, remove"),
        lock.exclusive_lock(tmp_path / "run"),
    ):
        pass


def test_an_owner_that_another_process_replaced_is_put_back(tmp_path, no_locks):
    name_owner(tmp_path / "run")
    lock._remove_dead_owner(tmp_path / "run" / "lock.owner")
    assert [path.name for path in sorted((tmp_path / "run").iterdir())] == ["lock", "lock.owner"]


def test_with_locks_a_held_one_is_in_use_and_no_owner_is_named(tmp_path):
    with lock.exclusive_lock(tmp_path / "run"):
        assert lock.is_locked(tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]
    with lock.shared_lock(tmp_path / "run"):
        assert not lock.is_locked(tmp_path / "run"), "reading is not training"


def test_a_backslash_is_refused_before_the_folder_is_made(tmp_path):
    with (
        pytest.raises(InputError, match="there must be no backslash in"),
        lock.exclusive_lock(tmp_path / "a\\b" / "run"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
