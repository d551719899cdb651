"""Files of this machine: atomic writing, waiting for a file that another host wrote, and the user's cache folder."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from stepwise_jax.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name when the block ends: a reader sees the old file or the new one.

    By then the content is on disk, safe from a power cut. If the block fails, nothing of the new file remains. Several
    processes and threads may write one file at once.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        # A partial file would occupy disk space that the next attempt needs.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_output(option: str, path: Path) -> None:
    """Check that a file can be written, and leave none where there was none.

    Args:
      option: of the command line that names the file.
      path: of the file.

    Raises:
      InputError: naming the option, the file, and why it cannot be written.
    """
    existed = path.exists()
    try:
        with open(path, "ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise InputError(f"{option} {path} cannot be written: {error.strerror}") from error


LAG_SECONDS = 90.0
"""A network file system may show a host's new files to another one only after a minute."""

_LOOK_SECONDS = 0.2


def wait_for_file(path: Path) -> bool:
    """Wait until a file that another host has written is visible here, for `LAG_SECONDS` at most; whether it is."""
    deadline = time.monotonic() + LAG_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        with suppress(OSError):
            # Listing the folder makes NFS ask its server again.
            os.listdir(path.parent)
    return path.exists()


def user_cache() -> Path | None:
    """This package's folder under $XDG_CACHE_HOME or ~/.cache; None if the home folder is unknown."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root, "stepwise-jax") if os.path.isabs(root) else None
