"""Standard streams that are closed, full or gone: a process continues when nobody can read its output.

The entry point imports this module first, so it imports nothing that is slow to load.
"""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO, cast


class TolerantStream:
    """A text stream that drops what cannot be written, as on a full disk or a closed terminal."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.error: OSError | None = None
        """The first error of the stream."""

    def write(self, text: str) -> int:
        """Write a text, if possible."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts, if possible."""
        self._try(lambda: self._stream.writelines(lines))

    def flush(self) -> None:
        """Flush the stream, if possible."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            self.error = self.error or error


def tolerate_errors(stream: TextIO) -> TextIO:
    """Return the stream as a `TolerantStream`."""
    return stream if isinstance(stream, TolerantStream) else cast(TextIO, TolerantStream(stream))


def tolerate_lost_streams() -> None:
    """Open closed standard streams on /dev/null, and let no error of stdout or stderr end this process.

    Otherwise the next file that is opened, such as a checkpoint, would be descriptor 1 or 2 and receive the output of
    libraries.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is this one. Processes that this one starts inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has no objects for descriptors that were closed when it started.
    sys.stdout = tolerate_errors(sys.stdout or _open(1))
    sys.stderr = tolerate_errors(sys.stderr or _open(2))


def _open(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", closefd=False)


def raise_lost_output() -> None:
    """Raise the first error of stdout after `tolerate_lost_streams`, if there was one."""
    sys.stdout.flush()
    if isinstance(sys.stdout, TolerantStream) and sys.stdout.error:
        discard_output()
        raise sys.stdout.error


def discard_output() -> None:
    """Send the rest of stdout to /dev/null: Python would fail once more when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
