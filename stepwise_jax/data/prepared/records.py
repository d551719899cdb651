"""Record files: read by row through a limited number of open readers, and again after an error that may pass."""

import errno
import os
import resource
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from stepwise_jax.errors import ReadError

RETRY_PAUSES = (0.2, 0.6, 1.8)
"""Seconds before each attempt to read again."""

_MAX_THREADS = 32

_MAX_DESCRIPTORS = 1 << 16

_RESERVED_DESCRIPTORS = 256
"""Descriptors left to the libraries of a process: its devices, checkpoints and logs."""


class RecordFiles:
    """The records of a split on disk, by row from 0. Thread-safe.

    Each open reader takes a descriptor, and large data sets have more files than a process may open: the least
    recently used reader is closed. Several files are read at a time, because a network's file system answers late.
    """

    def __init__(self, split: Any):
        instructions = split.file_instructions
        self._paths = [str(each.filename) for each in instructions]
        self._skips = [each.skip for each in instructions]
        self._starts = np.cumsum([0, *(each.take for each in instructions)])
        self._readers: OrderedDict[int, Any] = OrderedDict()
        self._lock, self._limit = threading.Lock(), open_reader_limit()
        self._pool = ThreadPoolExecutor(min(_MAX_THREADS, self._limit, len(self._paths) or 1))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, rows: Sequence[int]) -> list[bytes]:
        """The records of some rows, in their order.

        Raises:
          ReadError: if the operating system still reports an error after several attempts.
          RuntimeError: if a record is damaged.
        """
        wanted = np.asarray(rows, np.int64)
        files = np.searchsorted(self._starts, wanted, side="right") - 1
        numbers = np.unique(files).tolist()
        places = [np.flatnonzero(files == number) for number in numbers]
        positions = [wanted[place] - self._starts[number] for number, place in zip(numbers, places, strict=True)]
        run = map if len(numbers) < 2 else self._pool.map
        records: list[bytes] = [b""] * len(wanted)
        for place, found in zip(places, run(self._read_patiently, numbers, positions), strict=True):
            for index, record in zip(place.tolist(), found, strict=True):
                records[index] = record
        return records

    def _read_patiently(self, number: int, positions: np.ndarray) -> list[bytes]:
        stored = (positions + self._skips[number]).tolist()
        for pause in (*RETRY_PAUSES, None):
            try:
                return self._reader(number).read(stored)
            except RuntimeError as error:
                cause = system_cause(error)
                self._forget(number)
                if cause is None:
                    raise
                if pause is None:
                    path = self._paths[number]
                    raise ReadError(f"{path!r} cannot be read ({cause}): nothing is changed; try again") from error
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _reader(self, number: int) -> Any:
        """The reader of a file; the caller's reference keeps it open while others push it out."""
        with self._lock:
            if number in self._readers:
                self._readers.move_to_end(number)
                return self._readers[number]
        reader = open_reader(self._paths[number])
        with self._lock:
            self._readers[number] = reader
            while len(self._readers) > self._limit:
                self._readers.popitem(last=False)
        return reader

    def _forget(self, number: int) -> None:
        # A reader that failed once fails for ever.
        with self._lock:
            self._readers.pop(number, None)


def open_reader(path: str) -> Any:
    """A reader of single records; what is wrong with the file is an error of its first read."""
    return ArrayRecordReader(path, options="readahead_buffer_size:0", file_reader_buffer_size=1 << 15)


def open_reader_limit() -> int:
    """How many readers a split may keep open: a run has two splits, and opens a file before it closes another."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, _MAX_DESCRIPTORS)
    return max(4, (allowed - _RESERVED_DESCRIPTORS) // 4)


def system_cause(error: Exception) -> str | None:
    """What the operating system reported, in its words; None if an error says something about the contents.

    array_record raises one type for all errors, and quotes the system in its message.
    """
    message = str(error)
    reasons = (os.strerror(code) for code in errno.errorcode)
    found = [reason for reason in reasons if f" failed: {reason}" in message]
    return max(found, key=len, default=None)
