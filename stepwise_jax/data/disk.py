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

_LOCK_POLL_SECONDS = 0.2


def check_free_space(folder: Path, needed: int) -> None:
    """Raise if a disk lacks the space for a piece of work.

    Args:
      folder: an existing folder on the disk.
      needed: bytes.

    Raises:
      InputError: with the free space and the needed space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"data.data_dir: {str(folder)!r} has {free >> 20} MiB free, {_mebibytes(needed)} are needed")


def write_error(path: Path, error: Exception, needed: int) -> InputError:
    """The error for a path that cannot be written, with the bytes needed if the disk is full."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if is_disk_full(error):
        reason = f"{os.strerror(errno.ENOSPC)}, {_mebibytes(needed)} are needed"
    return InputError(f"data.data_dir: cannot write {str(path)!r}: {reason}")


def is_disk_full(error: Exception) -> bool:
    """Whether an error reports a full disk; array_record's writer only says so in its message."""
    return os.strerror(errno.ENOSPC) in str(error)


def is_disk_error(error: Exception) -> bool:
    """Whether an error's message reports a disk that accepts no more data: full, read-only, failing, or over quota."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    return any(os.strerror(code) in str(error) for code in codes)


def _mebibytes(count: int) -> str:
    return f"{-(-count >> 20)} MiB"


@contextmanager
def file_lock(path: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock file at `path`; call `waiting()` five times a second while another process holds it.

    Yields:
      Whether the lock is held: some clusters' file systems do not support locks; there, work continues without one.

    Raises:
      OSError: if the file cannot be created.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        held = _try_lock(handle)
        while held is False:
            waiting()
            time.sleep(_LOCK_POLL_SECONDS)
            held = _try_lock(handle)
        yield held is True
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool | None:
    """Whether this process has the lock now; None if the file system does not support locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
