"""Why a file of a run cannot be written, and what helps."""

import errno
import os

from stepwise_jax.errors import SaveError, first_line
from stepwise_jax.workdir.reading import error_chain, os_error_code

_FULL = (errno.ENOSPC, errno.EDQUOT)


def checkpoint_error(error: Exception) -> SaveError:
    """Return the error for a checkpoint that cannot be written, with the reason in the operating system's words."""
    code = os_error_code(error)
    reason = "the disk is full" if code in _FULL else os.strerror(code) if code else first_line(error)
    return SaveError(f"the checkpoint cannot be written ({reason})")


def write_advice(error: BaseException) -> str:
    """Say what to do before the next attempt. Free space helps only where the disk is full."""
    full = any(os_error_code(each) in _FULL for each in error_chain(error))
    return f"{'free some space' if full else 'once it can be written'}, and run the same command"
