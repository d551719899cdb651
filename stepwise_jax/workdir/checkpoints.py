"""Orbax checkpoints with checksums of our own: what is restored is what was saved, or the checkpoint before it.

Orbax leaves the previous step as the latest when a save is cut off, but restores a flipped byte or another dtype in
silence. So each checkpoint carries a digest of the state and of the place in training, and a restore computes it anew.

After a save that failed, Orbax leaves its half in the folder, where it takes the room that the next one needs, and
counts checkpoints wrongly. So what is half is removed then, and Orbax's manager opened anew. Of several processes the
one where it failed does not wait for the others, as Orbax would for twenty minutes: it is to end, and they with it.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from stepwise_jax.errors import InputError, SaveError, describe_error, first_line
from stepwise_jax.functional.state import TrainState, digest
from stepwise_jax.runtime import multihost

Place = dict[str, Any]
"""Where in training a checkpoint stands, as plain JSON data (`progress.Progress`)."""


class Checkpoints:
    """The checkpoints of one run, named by the optimiser steps done; a context that waits for the last save."""

    def __init__(self, folder: Path, keep: int, *, read_only: bool = False):
        self._folder, self._keep, self._read_only = folder.absolute(), keep, read_only
        self._held: int | None = None
        self._prepared: tuple[int, Any] | None = None
        self._writing, self._failed_here = False, False
        if not read_only:
            self._remove_halves()
        self._manager = self._open()
        self._saved_at = time.monotonic()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Kept(self._keep, lambda: self._held),
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(barrier_sync_fn=self._meet),
            # Of one process we remove them: Orbax does it beside the first saves, and stumbles over what is gone.
            cleanup_tmp_directories=not self._read_only and jax.process_count() > 1,
            create=not self._read_only,
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def _meet(self, *, key: str, timeout_ms: int) -> None:
        """Waits in a thread of Orbax's until all processes are there, unless it is a failure that brings it here."""
        failure = sys.exc_info()[1]
        if failure and jax.process_count() > 1:
            self._failed_here = True
            raise failure
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        if error is not None and multihost.is_local_failure(error):
            return
        try:
            self.wait()
        except SaveError:
            # What ended the run is told, and not what came of it.
            if kind is None:
                raise
        finally:
            self._manager.close()

    def hold(self, step: int) -> None:
        """Keeps the checkpoint of `step`, if there is one, beside the newest ones, until another is held."""
        self._held = step

    def steps(self) -> list[int]:
        """The steps of all checkpoints, the one being written included, in order."""
        prepared = () if self._prepared is None else (self._prepared[0],)
        return sorted({*self._manager.all_steps(), *prepared})

    def save(self, state: TrainState, place: Place, *, later: bool = False) -> None:
        """Starts writing `state` in the background; a place that is saved already is left as it is.

        The state is copied first, because the next training step takes over its memory.

        Args:
          state: what to save.
          place: where the run is.
          later: only copy it now; `begin`, or whatever else is asked for next, starts writing. Orbax's threads keep the
            interpreter busy, which the start of a stage has better use for.

        Raises:
          UnsavedError: if writing cannot begin, or the save before it, still under way until now, has failed.
        """
        # Also where it fails: the next attempt is due after the same time.
        self._saved_at = time.monotonic()
        self.wait()
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._remove_halves()
        self._try_folder()
        copy = jax.tree.map(jnp.copy, state)
        document = {"place": place, "sha256": _seal(copy, place)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(copy), run=ocp.args.JsonSave(document))  # pyright: ignore
        self._prepared = step, items
        if not later:
            self.begin()

    def begin(self) -> None:
        """Starts writing what was left for later, if anything was.

        Raises:
          UnsavedError: if writing cannot begin.
        """
        if self._prepared is None:
            return
        (step, items), self._prepared, self._writing = self._prepared, None, True
        try:
            self._manager.save(step, args=items, force=True)
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        self._saved_at = time.monotonic()

    def due(self, every_seconds: float) -> bool:
        """Whether so many seconds have passed since the last save, or the opening, and none is still being written.

        Raises:
          UnsavedError: if the one that was being written has failed since the last call, or cannot be begun.
        """
        self.begin()
        if self._writing and (self._failed_here or not self._manager.is_saving_in_progress()):
            self.wait()
        return not self._writing and time.monotonic() - self._saved_at >= every_seconds

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          UnsavedError: if the save under way fails; told once.
        """
        self.begin()
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._failed(error) from error
        self._writing = False

    def _failed(self, error: Exception) -> SaveError:
        """Makes the next attempt possible, and tells why this one failed."""
        self._writing = False
        # Of several processes one alone must not begin anew: the others would wait for it.
        if jax.process_count() == 1:
            # A manager that failed knows what it could not write, and raises it again.
            with contextlib.suppress(OSError, ValueError):
                self._manager.close()
            self._remove_halves()
            self._manager = self._open()
        return _unsaved(error)

    def _remove_halves(self) -> None:
        """Removes what failed saves left; only while none is under way."""
        if jax.process_count() == 1:
            for half in self._folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(half, ignore_errors=True)

    def _try_folder(self) -> None:
        """Refuses a folder that takes nothing: Orbax's threads would wait minutes for what they cannot make in it."""
        # Of a name that Orbax does not take for a half of its own, which it may be removing just now.
        trial = self._folder / f".trial-{jax.process_index()}"
        try:
            trial.write_bytes(bytes(1 << 12))
        except OSError as error:
            raise _unsaved(error) from error
        finally:
            with contextlib.suppress(OSError):
                trial.unlink(missing_ok=True)

    def delete_after(self, step: int) -> None:
        """Removes every checkpoint of later steps than `step`."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def restore(self, like: TrainState, report: Callable[[str], None]) -> tuple[TrainState, Place] | None:
        """The newest checkpoint that is whole, or None where there is none at all.

        Args:
          like: a state of the right tree, shapes, dtypes and shardings; its values do not matter.
          report: told of each damaged checkpoint that is passed over (and removed, unless opened for reading only).

        Raises:
          InputError: if there are checkpoints and none is whole.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = self._restore(step, like)
            except Exception as error:
                report(f"checkpoint {step} is damaged ({describe_error(error)}): it is passed over")
                continue
            for damaged in [] if self._read_only else steps[: steps.index(step)]:
                self._manager.delete(damaged)
            return restored
        if steps:
            raise InputError(f"none of the {len(steps)} checkpoints is whole: start again in another workdir")
        return None

    def _restore(self, step: int, like: TrainState) -> tuple[TrainState, Place]:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), run=ocp.args.JsonRestore())  # pyright: ignore
        restored = self._manager.restore(step, args=items)
        state, document = TrainState(*restored["state"]), restored["run"]
        if _seal(state, document["place"]) != document["sha256"]:
            raise ValueError("its contents do not match its checksum")
        return state, document["place"]


class _Kept:
    """Which checkpoints stay (Orbax's preservation policy): the newest, and the one that is held."""

    def __init__(self, newest: int, held: Callable[[], int | None]):
        self._newest, self._held = newest, held

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """For each checkpoint, in order of their steps, whether it stays."""
        older = max(0, len(checkpoints) - self._newest)
        return [place >= older or each.step == self._held() for place, each in enumerate(checkpoints)]


def _seal(state: TrainState, place: Place) -> str:
    """SHA-256 over the state and the place: what was saved together belongs together."""
    return hashlib.sha256((digest(state) + json.dumps(place, sort_keys=True)).encode()).hexdigest()


def _unsaved(error: Exception) -> SaveError:
    return SaveError(f"the checkpoint cannot be written ({_reason(error)})")


def _reason(error: Exception) -> str:
    """Why something cannot be written, in the operating system's words."""
    # TensorStore's own errors have no errno, but quote it.
    quoted = re.search(r"os_error_code='(\d+)'", str(error))
    code = error.errno if isinstance(error, OSError) else int(quoted[1]) if quoted else None
    if code in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return os.strerror(code) if code else first_line(error)
