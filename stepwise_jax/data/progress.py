"""Progress of a long task, reported often enough for a live display and no more often."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

ProgressCallback = Callable[[int, int, str], None]
"""Called as `progress(done, total, task)`, several times a second; `total` is 0 while nobody knows it."""

_T = TypeVar("_T")

_INTERVAL_SECONDS = 0.1


class ProgressMeter:
    """Counts finished items and calls `progress(done, total, task)` at most ten times a second.

    Where the total is unknown, 0, the first call comes after a tenth of a second.
    """

    def __init__(self, progress: ProgressCallback, total: int, task: str):
        self._progress, self._total, self._task = progress, total, task
        self._done, self._reported_at = 0, 0.0 if total else time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count `count` more items as done."""
        self._done += count
        if time.monotonic() - self._reported_at >= _INTERVAL_SECONDS:
            self.report()

    def report(self) -> None:
        """Report at once. The last of `total` items only counts when `finish` is called."""
        self._reported_at = time.monotonic()
        self._progress(min(self._done, self._total - 1) if self._total else self._done, self._total, self._task)

    def finish(self) -> None:
        """Report that everything is done."""
        self._progress(self._total, self._total, self._task)

    def wait_for(self, future: "Future[_T]") -> _T:
        """Wait for a future, reporting meanwhile, and return its result."""
        while not wait([future], timeout=_INTERVAL_SECONDS).done:
            self.report()
        return future.result()


@contextmanager
def progress_meter(progress: ProgressCallback, total: int, task: str) -> Iterator[ProgressMeter]:
    """A meter that reports at its start and, unless an error ends the task, at its end."""
    meter = ProgressMeter(progress, total, task)
    meter.report()
    yield meter
    meter.finish()
