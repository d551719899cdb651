"""Signals that ask a run to stop: it finishes its step, writes a checkpoint, and says how to go on."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

# Terminal, kill, and the notice that Slurm and cloud schedulers send before they take a machine away.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal has come, and which."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __bool__(self) -> bool:
        return self.name is not None


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """Work was left undone because the run is to stop: whoever can save catches it."""


T = TypeVar("T")


def heed(stop: StopRequest, items: Iterable[T]) -> Iterator[T]:
    """The items, as long as nobody asks the run to stop.

    Raises:
      Stopped: before the first item after a signal.
    """
    for item in items:
        if stop:
            raise Stopped
        yield item


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Notes the first signal in the yielded `StopRequest`; a second one ends the process at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _: FrameType | None) -> None:
        request.name = signal.Signals(number).name
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, note) for each in SIGNALS}
    try:
        yield request
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
