"""Signals that ask a run to stop: it finishes its step, writes a checkpoint, and says how to go on.

Imported before everything else by the entry point: it needs nothing that takes time to load.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

# Terminal, kill, and the notice that Slurm and cloud schedulers send before they take a machine away.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


SHOW_CURSOR = "\x1b[?25h"


def exit_on_signals() -> None:
    """Lets a signal end the process at once, with 130 or 75, as long as there is nothing to finish and nothing to save.

    An exception would not do: what a signal raises inside a callback of a library is printed and passed over.
    """

    def leave(number: int, _: FrameType | None) -> None:
        name, cursor = signal.Signals(number).name, SHOW_CURSOR if sys.stderr.isatty() else ""
        told = f"{cursor}error: stopped by {name} while no training was under way: run the same command to go on\n"
        # Neither buffers nor locks, which the signal may have found half way.
        os.write(2, told.encode())
        os._exit(130 if number == signal.SIGINT else 75)

    for each in SIGNALS:
        signal.signal(each, leave)
    unblock_signals()


def block_signals() -> None:
    """Has signals wait, also while another program takes this one's place; heeds what has come before."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def unblock_signals() -> None:
    """Heeds signals again, and those that have waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class StopRequest:
    """Whether a signal has come, and which."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __bool__(self) -> bool:
        return self.name is not None


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """Work was left undone because the run is to stop: whoever can save catches it."""


T = TypeVar("T")


def until_stopped(stop: object, items: Iterable[T]) -> Iterator[T]:
    """The items, as long as `stop` is false.

    Raises:
      Stopped: before the first item for which it is true: after a signal.
    """
    for item in items:
        if stop:
            raise Stopped
        yield item


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Notes the first signal in the yielded `StopRequest`; a second one ends the process at once.

    Two that come within one step of the interpreter are one.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _: FrameType | None) -> None:
        request.name = signal.Signals(number).name
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, note) for each in SIGNALS}
    hook, sys.unraisablehook = sys.unraisablehook, _quiet(sys.unraisablehook)
    try:
        yield request
    finally:
        sys.unraisablehook = hook
        for each, handler in before.items():
            signal.signal(each, handler)


def _quiet(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`hook` for all but the traceback that Python prints when it passes over the second of two signals at once."""

    def tell(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, OSError) and "due to race condition" in str(unraisable.exc_value)):
            hook(unraisable)

    return tell
