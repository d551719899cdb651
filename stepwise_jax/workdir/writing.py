"""Writes the state of a checkpoint to the disk, and says why a file of a run cannot be written, and what helps.

TensorStore forces each of a checkpoint's files to the disk as it writes it, some forty times for a small network, and
gives up if a signal or a network file system interrupts one of these calls (EINTR); it repeats a write that is
interrupted. Python repeats both. So TensorStore only writes here, and the files are forced to the disk afterwards,
before Orbax gives the checkpoint its name.
"""

import errno
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore

from stepwise_jax.errors import SaveError, first_line
from stepwise_jax.workdir.reading import error_chain, os_error_code

_FULL = (errno.ENOSPC, errno.EDQUOT)

_INTERRUPTED = (errno.EINTR, errno.EAGAIN)


_unforced: ContextVar[bool] = ContextVar("unforced", default=False)


def _extend_settings(module: Any) -> None:
    """Open TensorStore with Orbax's own settings, except for the saves of `StateHandler`."""
    orbax_context = module.get_ts_context

    def context(*arguments: Any, **options: Any) -> tensorstore.Context:
        settings = orbax_context(*arguments, **options)
        return tensorstore.Context({"file_io_sync": False}, settings) if _unforced.get() else settings

    module.get_ts_context = context


# Orbax has no option for this. Where another version takes its settings elsewhere, TensorStore forces files itself.
with suppress(ImportError, AttributeError):
    _extend_settings(importlib.import_module("orbax.checkpoint._src.serialization.tensorstore_utils"))


@contextmanager
def _without_forcing() -> Iterator[None]:
    """Within it, TensorStore does not force files to the disk, unless other processes write some of them."""
    token = _unforced.set(jax.process_count() == 1)
    try:
        yield
    finally:
        _unforced.reset(token)


class StateHandler(ocp.StandardCheckpointHandler):
    """Saves a state as Orbax does, and forces its files to the disk all at once before the checkpoint is complete."""

    async def async_save(self, *arguments: Any, **options: Any) -> Any:
        """Start writing; as in the base class."""
        with _without_forcing():
            return await super().async_save(*arguments, **options)

    def finalize(self, directory: Any) -> None:
        """Complete the files in `directory`, and force them to the disk.

        Raises:
          OSError: if the disk reports that some cannot be written.
        """
        with _without_forcing():
            super().finalize(directory)
        for folder, _, names in os.walk(directory, topdown=False):
            for path in (*(os.path.join(folder, name) for name in names), folder):
                _force(path)


def make_handlers() -> ocp.handlers.CheckpointHandlerRegistry:
    """What writes and reads the two items of a checkpoint: the state, and the document of the run."""
    registry, state, run = ocp.handlers.DefaultCheckpointHandlerRegistry(), StateHandler(), ocp.JsonCheckpointHandler()
    for arguments in (ocp.args.StandardSave, ocp.args.StandardRestore):
        registry.add("state", arguments, state)
    for arguments in (ocp.args.JsonSave, ocp.args.JsonRestore):
        registry.add("run", arguments, run)
    return registry


def _force(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
