"""Observers that training does not wait for."""

from functools import partial

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
        self._observer, self._worker = observer, BackgroundWorker(self.__name__)
        self._error: Exception | None = None

    def __call__(self, record: Record, /) -> None:
        last = self._worker.submit(partial(self._observe, record))
        if isinstance(record, EndRecord):
            # Tasks are done in order, so this was the last one.
            last.result()
        if isinstance(record, EndRecord) or self._error is not None:
            self._worker.close()
            self._worker = BackgroundWorker(self.__name__)
        if self._error is not None:
            raise self._error

    def _observe(self, record: Record) -> None:
        """Call the observer, but never again after its first error."""
        if self._error is not None:
            return
        try:
            self._observer(record)
        except Exception as error:
            self._error = error
