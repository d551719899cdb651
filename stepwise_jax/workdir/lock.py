"""Locks on a run's folder: one process may train in it, or several may read its checkpoints.

Some file systems of clusters have no locks (Lustre without flock, NFS without its lock service, FUSE). There a process
that trains names itself in `lock.owner`, by its host, number and start. The file of a process that has died does not
count on the same host; that of another host does, because nothing here can tell.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, StepwiseError
from stepwise_jax.workdir.files import CHECKPOINTS, CONFIG, DESIGN, LOCK, OWNER


class HeldLock:
    """The lock of this process on the workdir that it trains in."""

    def __init__(self, path: Path, handle: int):
        self._path, self._file = path, os.fstat(handle)

    def check(self) -> None:
        """Check that the workdir is still the folder that was locked; a later one of the same name is another run's.

        Raises:
          StepwiseError: if it was removed or replaced.
        """
        try:
            same = os.path.samestat(self._file, os.stat(self._path))
        except (FileNotFoundError, NotADirectoryError):
            same = False
        except OSError:
            # Nothing is known of the folder at the moment: whatever is written into it says what is wrong.
            return
        if not same:
            raise StepwiseError(
                f"--workdir {self._path.parent} was removed or replaced while this process was training in it: "
                "nothing more is written; what is in it now belongs to another run"
            )


@contextmanager
def exclusive_lock(workdir: Path) -> Iterator[HeldLock]:
    """Lock the workdir for training, creating it if needed; the lock of a dead process does not count.

    Raises:
      InputError: if the folder cannot be created or written, holds something else, or another process trains in it.
    """
    _check_names(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if any(workdir.iterdir()) and not _is_run(workdir):
            raise InputError(
                f"--workdir {workdir} is not empty and holds no run: name a new folder, or a run to resume"
            )
        handle = os.open(workdir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"--workdir {workdir} cannot be written: {error.strerror}") from error
    with ExitStack() as stack:
        stack.callback(os.close, handle)
        held = _flock(handle, fcntl.LOCK_EX)
        if held is None and (held := _claim(workdir / OWNER)):
            stack.callback((workdir / OWNER).unlink, missing_ok=True)
        if not held:
            raise _in_use(f"--workdir {workdir}", workdir)
        _remove_partial_files(workdir)
        yield HeldLock(workdir / LOCK, handle)


def _remove_partial_files(workdir: Path) -> None:
    """Remove what a process that was killed while it wrote a file (`atomic_write`) has left behind."""
    for path in workdir.glob(".*.*.*.tmp"):
        with suppress(OSError):
            path.unlink()


def _flock(handle: int, kind: int) -> bool | None:
    """Whether this process has the lock now; None where the file system has no locks."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _in_use(name: str, workdir: Path) -> InputError:
    owner = _read_owner(workdir / OWNER)
    there = owner and f" (process {owner['pid']} on {owner['host']}: if it has ended, remove {workdir / OWNER})"
    return InputError(f"{name} is in use: another process is training in it{there or ''}")


def _check_names(workdir: Path) -> None:
    try:
        str(workdir.absolute()).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"--workdir {str(workdir)!a} must be UTF-8: checkpoints cannot be written to it") from error
    if "\\" in str(workdir.absolute()):
        # TensorStore would write to other folders: it takes a backslash for a slash.
        raise InputError(f"--workdir {workdir}: there must be no backslash in {workdir.absolute()}")
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir {workdir} is a file: it must be a folder, or a new name")
    checkpoints = workdir / CHECKPOINTS
    if checkpoints.exists() and not checkpoints.is_dir():
        raise InputError(f"{checkpoints} must be a folder: move that file away")


def is_locked(workdir: Path) -> bool:
    """Whether a process is training in the folder now."""
    try:
        handle = os.open(workdir / LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        free = _flock(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)
    return not free if free is not None else _has_owner(workdir / OWNER)


@contextmanager
def shared_lock(workdir: Path) -> Iterator[None]:
    """Lock a run's folder for reading: nobody can train in it meanwhile, others can read. Nothing is written.

    Where the file system has no locks, a process may start to train meanwhile.

    Raises:
      InputError: if another process trains in it, or its files cannot be read.
    """
    try:
        handle = os.open(workdir / LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        # A copy of a run without its lock file: nobody trains in it.
        yield
        return
    except OSError as error:
        raise InputError(f"{workdir} cannot be read: {error.strerror}") from error
    try:
        held = _flock(handle, fcntl.LOCK_SH)
        if held is False or (held is None and _has_owner(workdir / OWNER)):
            raise _in_use(str(workdir), workdir)
        yield
    finally:
        os.close(handle)


def _claim(path: Path) -> bool:
    """Create the file that names this process, in place of that of a process that has died; False if one lives."""
    if _has_owner(path):
        return False
    with suppress(FileNotFoundError):
        _remove_dead_owner(path)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with open(handle, "w") as file:
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "started": _start_of(os.getpid())}, file)
    return True


def _remove_dead_owner(path: Path) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    os.rename(path, aside)
    if _has_owner(aside):
        # Another process came to the same conclusion earlier, and this file names it already.
        with suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()


def _has_owner(path: Path) -> bool:
    """Whether a process that may be alive is named in this file."""
    owner = _read_owner(path)
    if owner is None or owner["host"] != socket.gethostname():
        return owner is not None
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A later process may have the same number.
    return owner["started"] in (None, _start_of(owner["pid"]))


def _read_owner(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        owner = {}
    complete = isinstance(owner, dict) and isinstance(owner.get("pid"), int) and {"host", "started"} <= owner.keys()
    # Another process may be writing it at this moment.
    return owner if complete else {"host": "an unknown host", "pid": "unknown", "started": None}


def _start_of(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; None where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_run(workdir: Path) -> bool:
    # The lock file is created first: a run that was killed before it wrote config.json is still a run. A comparison
    # with a design creates the folders of its runs.
    return any((workdir / name).exists() for name in (CONFIG, LOCK, DESIGN))
