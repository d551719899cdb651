"""Why a file of a run cannot be written, and what helps."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from stepwise_jax.errors import SaveError, first_line
from stepwise_jax.workdir.reading import error_chain, os_error_code

_FULL = (errno.ENOSPC, errno.EDQUOT)

_INTERRUPTED = (errno.EINTR, errno.EAGAIN)


def checkpoint_error(error: Exception) -> SaveError:
    """Return the error for a checkpoint that cannot be written, with the reason in the operating system's words."""
    code = os_error_code(error)
    reason = "the disk is full" if code in _FULL else os.strerror(code) if code else first_line(error)
    return SaveError(f"the checkpoint cannot be written ({reason})")


def write_advice(error: BaseException) -> str:
    """Say what to do before the next attempt. Free space helps only where the disk is full."""
    full = any(os_error_code(each) in _FULL for each in error_chain(error))
    return f"{'free some space, and' if full else 'once that is remedied,'} run the same command"


def was_interrupted(error: BaseException) -> bool:
    """Whether a write was only interrupted, as network file systems do, so that the next attempt may succeed."""
    return any(os_error_code(each) in _INTERRUPTED for each in error_chain(error))


def check_writable(trial: Path) -> None:
    """Write and remove a file, so that a folder that cannot be written is an error early.

    Raises:
      SaveError: if it cannot be written.
    """
    try:
        trial.write_bytes(bytes(1 << 12))
    except OSError as error:
        raise checkpoint_error(error) from error
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)
