"""Progress of a long task, reported often enough for a live display and no oftener."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

Progress = Callable[[int, int, str], None]

Result = TypeVar("Result")

_SECONDS = 0.1


class ProgressMeter:
    """Counts what is done and tells `progress(done, total, what)` ten times a second."""

    def __init__(self, progress: Progress, total: int, what: str):
        self._progress, self._total, self._what = progress, total, what
        self._done, self._told_at = 0, 0.0

    def advance(self, count: int = 1) -> None:
        """Counts `count` more as done."""
        self._done += count
        if time.monotonic() - self._told_at >= _SECONDS:
            self.tell()

    def tell(self) -> None:
        """Reports at once; the last one of `total` counts only when the task is finished."""
        self._told_at = time.monotonic()
        self._progress(min(self._done, self._total - 1), self._total, self._what)

    def finish(self) -> None:
        """Reports that all is done."""
        self._progress(self._total, self._total, self._what)

    def result(self, future: "Future[Result]") -> Result:
        """The future's result, with reports while it is waited for."""
        while not wait([future], timeout=_SECONDS).done:
            self.tell()
        return future.result()


@contextmanager
def progress_meter(progress: Progress, total: int, what: str) -> Iterator[ProgressMeter]:
    """A meter that reports at its start and, unless an error ends the task, at its end."""
    meter = ProgressMeter(progress, total, what)
    meter.tell()
    yield meter
    meter.finish()
