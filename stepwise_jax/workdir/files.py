"""The files of a run: their names, and how one is written as a whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CONFIG, SUBSETS, SUMMARY, RECORDS = "config.json", "subsets.json", "summary.json", "records.jsonl"
PREPROCESSING, PREDICTIONS, SAMPLES = "preprocessing.json", "predictions.npz", "samples.npz"
CHECKPOINTS, TENSORBOARD, PROFILE = "checkpoints", "tensorboard", "profile"
LOCK = "lock"


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name when the block ends: a reader sees the old file or the new one.

    It is on disk by then, also after a power cut. Where the block fails, nothing is left of it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        # Half of it would take the room that the next attempt needs.
        temporary.unlink(missing_ok=True)
