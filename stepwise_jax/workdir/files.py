"""The names of a run's files, which checkpoints it has, and opening them."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

CONFIG, SUBSETS, SUMMARY, RECORDS = "config.json", "subsets.json", "summary.json", "records.jsonl"
PREPROCESSING, PREDICTIONS, SAMPLES = "preprocessing.json", "predictions.npz", "samples.npz"
CHECKPOINTS, TENSORBOARD, PROFILE = "checkpoints", "tensorboard", "profile"
LOCK, OWNER = "lock", "lock.owner"
LOGGING, DESIGN = "logging.json", "design.json"


def complete_steps(folder: Path) -> frozenset[str]:
    """The names of a run's complete checkpoints: Orbax gives a checkpoint its number when it is complete."""
    try:
        return frozenset(name for name in os.listdir(folder / CHECKPOINTS) if name.isdecimal())
    except FileNotFoundError:
        return frozenset()


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
