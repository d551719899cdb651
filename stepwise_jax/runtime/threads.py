"""Background threads: work that nobody has to wait for, and work done ahead of its use, in order."""

import atexit
import concurrent.futures
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

_unfinished: "set[Future[Any]]" = set()


class BackgroundWorker:
    """A thread that starts with the first piece of work. What is not begun when it is closed is dropped."""

    def __init__(self, name: str):
        self._name, self._thread = name, None
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._closed = False

    def submit(self, work: Callable[[], Any]) -> "Future[Any]":
        """Puts a piece of work at the end of the queue; its future can be cancelled until it is begun."""
        future: Future[Any] = Future()
        _unfinished.add(future)
        future.add_done_callback(_unfinished.discard)
        self._waiting.put((future, work))
        if self._thread is None:
            # A daemon: compiling cannot be interrupted, and must not keep a process that was asked to stop.
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        return future

    def close(self) -> None:
        """Begins nothing more; what is begun goes on to its end."""
        self._closed = True
        self._waiting.put(None)

    def _run(self) -> None:
        while (piece := self._waiting.get()) is not None:
            future, work = piece
            if self._closed:
                future.cancel()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)


@atexit.register
def _let_the_last_end() -> None:
    """Waits for what is begun: an interpreter that ends while a thread is inside the compiler is aborted."""
    concurrent.futures.wait([future for future in tuple(_unfinished) if not future.cancel()])


def is_busy() -> bool:
    """Whether work is going on that outlives whoever asked for it: a process then ends without waiting for it."""
    return bool(_unfinished)


Item = TypeVar("Item")

Result = TypeVar("Result")

_CHUNK_BYTES = 4 << 20


def run_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Future[Result]]:
    """Futures of `function` over the items, in their order, two for each core under way.

    Those not yet begun are cancelled when the iterator is closed before its end.
    """
    workers = cores()
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunk_length(bytes_each: float, most: int) -> int:
    """Items for one thread to take at a time: few enough to hold megabytes, enough to be worth its while."""
    return max(1, min(most, int(_CHUNK_BYTES / max(bytes_each, 1))))
