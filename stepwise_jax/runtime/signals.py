"""Signals that stop a run: it finishes its step, writes a checkpoint, and says how to continue.

The entry point imports this module first, so it imports nothing that is slow to load.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar

NOTICES = (signal.SIGHUP, signal.SIGUSR1)
"""From a terminal or connection that closes, and from a scheduler some time before it ends a job.

Where they are ignored when the process starts, as under `nohup`, they stay ignored. A second one changes nothing: a
terminal that closes sends several.
"""

SIGNALS = (signal.SIGINT, signal.SIGTERM, *NOTICES)
"""From the terminal, from `kill`, and from Slurm and cloud schedulers before they preempt a machine."""

PARENT = "STEPWISE_PARENT"
"""Environment variable: the number of the process without which `stop_with_parent` stops this one."""

SHOW_CURSOR = "\x1b[?25h"


def exit_on_signals() -> None:
    """Make a signal exit the process at once, with 130 or 75, while there is nothing to finish or to save.

    An exception is not enough: Python prints and ignores one that is raised inside a library's callback.
    """

    def exit_now(number: int, _: FrameType | None) -> None:
        name, cursor = signal.Signals(number).name, SHOW_CURSOR if sys.stderr.isatty() else ""
        message = f"{cursor}stopped by {name} while no training was running: run the same command to continue\n"
        # Without buffers and locks, which the signal may have interrupted; a closed terminal must not prevent the exit.
        with suppress(OSError):
            os.write(2, message.encode())
        os._exit(130 if number == signal.SIGINT else 75)

    for each in _not_ignored():
        signal.signal(each, exit_now)
    unblock_signals()


def _not_ignored() -> list[signal.Signals]:
    """The signals to handle: all of `SIGNALS`, but for notices that are ignored."""
    return [each for each in SIGNALS if each not in NOTICES or signal.getsignal(each) is not signal.SIG_IGN]


def block_signals() -> None:
    """Block signals, also across `execve`; earlier ones are still handled."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def unblock_signals() -> None:
    """Handle signals again, including those that arrived while they were blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def stop_with_parent(seconds: float = 1.0) -> None:
    """Send SIGTERM to this process once its parent is gone, if the parent set `PARENT`.

    A parent that is killed with SIGKILL cannot stop its children itself.

    Args:
      seconds: between two looks at the parent.
    """
    # Removed, because the children of this process have another parent.
    parent = os.environ.pop(PARENT, "")
    if parent.isdecimal():
        threading.Thread(target=_watch, args=(int(parent), seconds), name="parent", daemon=True).start()


def _watch(parent: int, seconds: float) -> None:
    while os.getppid() == parent:
        time.sleep(seconds)
    # After a signal from somewhere else, this one would be the second, and end the process before it has saved.
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGTERM)


class StopRequest:
    """The first signal that arrived, if any."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __bool__(self) -> bool:
        return self.name is not None


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """Work was interrupted because the run should stop; the caller that can save catches it."""


_Item = TypeVar("_Item")


def until_stopped(stop: object, items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items as long as `stop` is false.

    Raises:
      Stopped: at the first item for which `stop` is true, after a signal.
    """
    for item in items:
        if stop:
            raise Stopped
        yield item


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Record the first signal in the yielded `StopRequest`; a second SIGINT or SIGTERM ends the process at once.

    Where Python's own handler was in force, as in a notebook, a second SIGINT raises `KeyboardInterrupt` instead. Two
    signals within one step of the interpreter count as one.
    """
    request = StopRequest()
    if not _in_main_thread():
        yield request
        return
    previous = _handlers()

    def record(number: int, _: FrameType | None) -> None:
        request.name = signal.Signals(number).name
        _install({each: _after_first(each, handler) for each, handler in previous.items()})

    _install(dict.fromkeys(_not_ignored(), record))
    hook, sys.unraisablehook = sys.unraisablehook, _without_signal_race(sys.unraisablehook)
    try:
        yield request
    finally:
        sys.unraisablehook = hook
        _install(previous)


def _after_first(number: signal.Signals, handler: Any) -> Any:
    """The handler of a second signal, given the one from before."""
    if number in NOTICES:
        return signal.SIG_IGN
    return handler if handler is signal.default_int_handler else signal.SIG_DFL


def with_own_handlers(items: Generator[_Item, None, Any]) -> Iterator[_Item]:
    """Yield what a generator yields; the signal handlers that it installs are in force only while it runs.

    A caller may stop reading for a while, or for good: signals that arrive then are the caller's.
    """
    handlers: dict[signal.Signals, Any] = {}
    end = object()
    try:
        while True:
            with _in_force(handlers):
                item = next(items, end)
            if item is end:
                return
            yield item  # pyright: ignore[reportReturnType]
    finally:
        with _in_force(handlers):
            items.close()


@contextmanager
def _in_force(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Install handlers; on exit keep in them what is installed by then, and install what was before."""
    before = _handlers()
    _install(handlers)
    try:
        yield
    finally:
        handlers.update(_handlers())
        _install(before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _handlers() -> dict[signal.Signals, Any]:
    """The handlers in force, but for those that were not installed by Python."""
    found = {each: signal.getsignal(each) for each in SIGNALS}
    return {each: handler for each, handler in found.items() if handler is not None}


def _install(handlers: Mapping[signal.Signals, Any]) -> None:
    # Python installs handlers in its main thread only; an abandoned generator is closed in any.
    for each, handler in handlers.items() if _in_main_thread() else ():
        signal.signal(each, handler)


def _without_signal_race(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap `hook` to suppress the traceback that Python prints when it ignores one of two simultaneous signals."""

    def filtered(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, OSError) and "due to race condition" in str(unraisable.exc_value)):
            hook(unraisable)

    return filtered
