"""The names of a run's files, and atomic writing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CONFIG, SUBSETS, SUMMARY, RECORDS = "config.json", "subsets.json", "summary.json", "records.jsonl"
PREPROCESSING, PREDICTIONS, SAMPLES = "preprocessing.json", "predictions.npz", "samples.npz"
CHECKPOINTS, TENSORBOARD, PROFILE = "checkpoints", "tensorboard", "profile"
LOCK, OWNER = "lock", "lock.owner"


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
