"""The lock of a run's folder: one process trains in it, others read it meanwhile or are refused."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.files import CHECKPOINTS, CONFIG, LOCK


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the workdir for this process, creating it where it does not exist; the lock of a dead owner is free.

    Raises:
      InputError: if the folder cannot be made or written, is no run's folder, or another process trains in it.
    """
    _check_names(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if any(workdir.iterdir()) and not _is_run(workdir):
            raise InputError(
                f"--workdir {workdir} is not empty and not a run: name a new folder, or a run to go on with"
            )
        handle = os.open(workdir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"--workdir {workdir} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise InputError(f"--workdir {workdir} is in use by another process that trains in it") from error
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
        raise InputError(f"--workdir {workdir} is a file: it must be a folder, or the name of a new one")
    checkpoints = workdir / CHECKPOINTS
    if checkpoints.exists() and not checkpoints.is_dir():
        raise InputError(f"{checkpoints} must be a folder: move what is there away")


def in_use(workdir: Path) -> bool:
    """Whether a process trains in the folder at this moment."""
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
def shared(workdir: Path) -> Iterator[None]:
    """Keeps trainers out of a run's folder while it is read; others may read it too. Nothing is written.

    Raises:
      InputError: if another process trains in it, or its files may not be read.
    """
    try:
        handle = os.open(workdir / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        # A copy of a run without its lock: nobody trains in it.
        yield
        return
    except OSError as error:
        raise InputError(f"{workdir} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise InputError(f"{workdir} is in use by another process that trains in it") from error
    try:
        yield
    finally:
        os.close(handle)


def _is_run(workdir: Path) -> bool:
    # The lock comes first: a run that was killed before its config.json is still a run.
    return (workdir / CONFIG).exists() or (workdir / LOCK).exists()
