"""The names of a run's files, opening them, and atomic writing."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CONFIG, SUBSETS, SUMMARY, RECORDS = "config.json", "subsets.json", "summary.json", "records.jsonl"
PREPROCESSING, PREDICTIONS, SAMPLES = "preprocessing.json", "predictions.npz", "samples.npz"
CHECKPOINTS, TENSORBOARD, PROFILE = "checkpoints", "tensorboard", "profile"
LOCK, OWNER = "lock", "lock.owner"
LOGGING, DESIGN = "logging.json", "design.json"


def open_file(path: Path) -> BinaryIO:
    """Open a run's file for reading. A pipe in its place would make this process wait, so it is an error.

    Raises:
      OSError: if it cannot be opened, or is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return open(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name when the block ends: a reader sees the old file or the new one.

    By then the content is on disk, safe from a power cut. If the block fails, nothing of the new file remains.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        # A partial file would occupy disk space that the next attempt needs.
        temporary.unlink(missing_ok=True)
