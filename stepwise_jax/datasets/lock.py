"""A lock between processes, let go of by the system when its holder dies."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
