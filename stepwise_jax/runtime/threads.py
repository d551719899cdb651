"""Background threads: tasks that nobody has to wait for, and tasks that run ahead of their use, in order."""

import atexit
import concurrent.futures
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

_unfinished: "set[Future[Any]]" = set()


class BackgroundWorker:
    """A thread that starts with the first task. Tasks that have not started when it is closed are dropped."""

    def __init__(self, name: str):
        self._name, self._thread = name, None
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._closed = False

    def submit(self, task: Callable[[], Any]) -> "Future[Any]":
        """Put a task at the end of the queue; its future can be cancelled until the task starts."""
        future: Future[Any] = Future()
        _unfinished.add(future)
        future.add_done_callback(_unfinished.discard)
        self._waiting.put((future, task))
        if self._thread is None:
            # A daemon: compiling cannot be interrupted, and must not keep a process alive that should stop.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return future

    def close(self) -> None:
        """Start no more tasks; a running task continues to its end."""
        self._closed = True
        self._waiting.put(None)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            future, task = item
            if self._closed:
                future.cancel()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:
                    future.set_exception(error)


@atexit.register
def _wait_for_running_tasks() -> None:
    """Wait for running tasks: an interpreter that exits while a thread is inside the compiler is aborted."""
    concurrent.futures.wait([future for future in tuple(_unfinished) if not future.cancel()])


def is_busy() -> bool:
    """Return whether a background task is unfinished: `exit_process` then exits without waiting for it."""
    return bool(_unfinished)


_Item = TypeVar("_Item")

_Output = TypeVar("_Output")

_CHUNK_BYTES = 4 << 20


def map_ahead(function: Callable[[_Item], _Output], items: Iterable[_Item]) -> Generator[Future[_Output], None, None]:
    """Yield futures of `function` over the items, in order, with two per core in flight.

    Closing the iterator early cancels the futures that have not started.
    """
    workers = usable_cores()
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[_Output]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunk_length(item_bytes: float, limit: int) -> int:
    """Return how many items a thread should take at a time: about four megabytes, at least 1, at most `limit`."""
    return max(1, min(limit, int(_CHUNK_BYTES / max(item_bytes, 1))))
