"""Observers that training does not wait for."""

from concurrent.futures import Future
from typing import Any

from stepwise_jax.runtime.threads import BackgroundWorker
from stepwise_jax.training.progress import Observer
from stepwise_jax.workdir.records import EndRecord, Record


def in_background(observer: Observer) -> Observer:
    """Return an observer that calls another one in a thread of its own, record by record, in order.

    Training then does not wait for a slow observer until the run ends: the end waits for the last record. An error
    of the observer reaches the run with the next record.

    Args:
      observer: a function of a record; it must not need the main thread, as some windows do.
    """
    return _BackgroundObserver(observer)


class _BackgroundObserver:
    def __init__(self, observer: Observer):
        self.__name__ = getattr(observer, "__name__", type(observer).__name__)
        self._observer = observer
        self._worker, self._calls = BackgroundWorker(self.__name__), list[Future[Any]]()

    def __call__(self, record: Record, /) -> None:
        self._calls = [call for call in self._calls if not _finished(call)]
        self._calls.append(self._worker.submit(lambda: self._observer(record)))
        if isinstance(record, EndRecord):
            calls, self._calls = self._calls, []
            for call in calls:
                call.result()


def _finished(call: "Future[Any]") -> bool:
    """Whether a call is over; raises its error."""
    return call.done() and call.result() is None
