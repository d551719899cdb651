"""Reads checkpoints: names their folder for Orbax, tells damage from an error that may pass, and sets damage aside.

A file that cannot be read at the moment (a stale handle, too many open files, no permission) says nothing of what it
holds. Orbax takes some of these errors for files that are missing. So what it cannot read, this module reads itself.
"""

import errno
import itertools
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

import jax
from etils.epath.gpath import PosixGPath

from stepwise_jax.errors import ReadError, is_out_of_memory

RETRY_PAUSES = (0.2, 0.6, 1.8)
"""Seconds before each attempt to read again."""

# These say that the files are not those that were saved: one is missing, or is of another kind.
_DAMAGE_CODES = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.ERANGE})

_Output = TypeVar("_Output")


class LiteralPath(PosixGPath):
    """A local path for Orbax; `glob` takes the path itself literally, whatever characters it has."""

    def glob(self, pattern: str) -> Iterator[Self]:
        """Yield what matches `pattern` below this path. The method of the base class reads both as one pattern."""
        for path in Path(os.fspath(self)).glob(pattern):
            yield type(self)(path)


def os_error_code(error: BaseException) -> int | None:
    """The operating system's code of an error; TensorStore's errors quote it in their text."""
    quoted = re.search(r"os_error_code='(\d+)'", str(error))
    return error.errno if isinstance(error, OSError) else int(quoted[1]) if quoted else None


def read_patiently(read: Callable[[], _Output], folder: Path) -> _Output:
    """Call `read`, which reads the files in `folder`; after an error that may pass, again after pauses.

    Several processes read together, so that none of them tries again alone.

    Raises:
      ReadError: if the files still cannot be read.
      Exception: the error of `read` if it occurs twice although every file can be read: they are damaged.
    """
    failed = jax.process_count() > 1
    for pause in (*(() if failed else RETRY_PAUSES), None):
        try:
            return read()
        except Exception as error:
            cause = _passing_cause(error, folder)
            if cause is None and (failed or is_out_of_memory(error)):
                raise
            if cause and pause is None:
                raise ReadError(f"{folder} cannot be read ({cause}): nothing is changed; try again") from error
            failed = cause is None
            time.sleep(pause if cause and pause else 0)
    raise AssertionError("the last attempt returns or raises")


def _passing_cause(error: BaseException, folder: Path) -> str | None:
    """Why files cannot be read at the moment; None if they can, or are not what was saved."""
    code = next((code for each in error_chain(error) if _may_pass(code := os_error_code(each))), None)
    if any(isinstance(each, MemoryError) for each in error_chain(error)):
        code = errno.ENOMEM
    code = code or _unreadable_code(folder)
    return os.strerror(code) if code else None


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and the errors that led to it."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _may_pass(code: int | None) -> bool:
    return code is not None and code not in _DAMAGE_CODES


def _unreadable_code(folder: Path) -> int | None:
    """The code of the first error on reading every file in a folder; None if all can be read."""
    errors: list[OSError] = []
    for parent, _, names in os.walk(folder, onerror=errors.append):
        for name in names:
            try:
                _read_through(Path(parent, name))
            except OSError as error:
                errors.append(error)
    return next((error.errno for error in errors if _may_pass(error.errno)), None)


def _read_through(path: Path) -> None:
    # Without blocking: whatever took the place of a file, such as a pipe, must not stop this process.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while stat.S_ISREG(os.fstat(handle).st_mode) and os.read(handle, 1 << 22):
            pass
    finally:
        os.close(handle)


def set_aside(folder: Path, step: int) -> str:
    """Rename a damaged checkpoint; returns its new name."""
    names = itertools.chain([f"damaged-{step}"], (f"damaged-{step}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if not os.path.lexists(folder / name))
    os.rename(folder / str(step), folder / name)
    return name
