"""Work that goes on beside training, one piece after another, and that nobody has to wait for at the end."""

import atexit
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_unfinished: "set[Future[Any]]" = set()


class Background:
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
