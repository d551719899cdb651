"""Disk space, checked before it is used, and a lock between processes."""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwise_jax.errors import InputError


def check_room(folder: Path, needed: int) -> None:
    """Refuses work that a disk has no room for.

    Args:
      folder: one that exists.
      needed: bytes.

    Raises:
      InputError: with the room that there is and the room that is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"data.data_dir: {str(folder)!r} has {free >> 20} MiB free, {_mebibytes(needed)} are needed")


def write_error(place: Path, error: Exception, needed: int) -> InputError:
    """The error that tells that something could not be written, with the bytes needed if the disk is full."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if is_full(error):
        reason = f"{os.strerror(errno.ENOSPC)}, {_mebibytes(needed)} are needed"
    return InputError(f"data.data_dir: cannot write {str(place)!r}: {reason}")


def is_full(error: Exception) -> bool:
    """Whether it tells of a full disk; array_record's writer says so in words alone."""
    return os.strerror(errno.ENOSPC) in str(error)


def is_refused(error: Exception) -> bool:
    """Whether it tells, in words, of a disk that takes no more: full, read-only, or beyond a quota."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    return any(os.strerror(code) in str(error) for code in codes)


def _mebibytes(count: int) -> str:
    return f"{-(-count >> 20)} MiB"


_SECONDS = 0.2


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Holds the lock file at `path`; calls `waiting()` five times a second while another process has it.

    Gives whether the lock is held: some clusters' file systems know no locks, and are used without.

    Raises:
      OSError: if the file cannot be made.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        held = _taken(handle)
        while held is False:
            waiting()
            time.sleep(_SECONDS)
            held = _taken(handle)
        yield held is True
    finally:
        os.close(handle)


def _taken(handle: int) -> bool | None:
    """Whether the lock is ours now; None if there are no locks here."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
