"""Locks on a run's folder: one process may train in it, or several may read its checkpoints."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.files import CHECKPOINTS, CONFIG, LOCK


@contextmanager
def exclusive_lock(workdir: Path) -> Iterator[None]:
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
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise InputError(f"--workdir {workdir} is in use: another process is training in it") from error
    try:
        yield
    finally:
        os.close(handle)


def _check_names(workdir: Path) -> None:
    try:
        str(workdir.absolute()).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"--workdir {str(workdir)!a} must be UTF-8: checkpoints cannot be written to it") from error
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir {workdir} is a file: it must be a folder, or a new name")
    checkpoints = workdir / CHECKPOINTS
    if checkpoints.exists() and not checkpoints.is_dir():
        raise InputError(f"{checkpoints} must be a folder: move that file away")


def is_locked(workdir: Path) -> bool:
    """Whether a process is training in the folder now."""
    try:
        handle = os.open(workdir / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def shared_lock(workdir: Path) -> Iterator[None]:
    """Lock a run's folder for reading: nobody can train in it meanwhile, others can read. Nothing is written.

    Raises:
      InputError: if another process trains in it, or its files cannot be read.
    """
    try:
        handle = os.open(workdir / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        # A copy of a run without its lock file: nobody trains in it.
        yield
        return
    except OSError as error:
        raise InputError(f"{workdir} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise InputError(f"{workdir} is in use: another process is training in it") from error
    try:
        yield
    finally:
        os.close(handle)


def _is_run(workdir: Path) -> bool:
    # The lock file is created first: a run that was killed before it wrote config.json is still a run.
    return (workdir / CONFIG).exists() or (workdir / LOCK).exists()
