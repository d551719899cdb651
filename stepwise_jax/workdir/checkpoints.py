"""Orbax checkpoints with checksums: a restore returns exactly what was saved, or the checkpoint before it.

If a save is cut off, Orbax keeps the previous step as the latest. But it restores a flipped byte or another dtype
silently. So each checkpoint stores a digest of the state and of the position in training, which a restore verifies.
A damaged checkpoint is set aside under another name, never deleted; an error of reading is no damage.

After a failed save, Orbax leaves the partial checkpoint in the folder, where it occupies disk space that the next one
needs, and counts checkpoints wrongly. So partial checkpoints are removed, and Orbax's manager is opened again. If there
are several processes, the one where a save failed does not wait for the others, as Orbax would for twenty minutes: it
ends, and so do they.
"""

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from stepwise_jax.errors import InputError, ReadError, SaveError, describe_error, is_out_of_memory
from stepwise_jax.functional.state import TrainState, digest, present_fields
from stepwise_jax.runtime import multihost
from stepwise_jax.workdir.reading import LiteralPath, read_patiently, set_aside
from stepwise_jax.workdir.writing import check_writable, checkpoint_error, make_handlers, was_interrupted

PositionDocument = dict[str, Any]
"""A position in training as plain JSON data (`training.progress.Position.document`)."""


MOST_ATTEMPTS = 5
"""To write a checkpoint, if the system only interrupts them."""

LONGEST_PAUSE = 60.0
"""Seconds between two attempts to save, at most, after several have failed."""


class Checkpoints:
    """The checkpoints of one run, named by optimizer steps. As a context manager it waits for the last save."""

    def __init__(self, folder: Path, keep: int, *, read_only: bool = False, check: Callable[[], None] | None = None):
        self.check = check or (lambda: None)  # of the workdir, before each write
        self._folder, self._keep, self._read_only = folder.absolute(), keep, read_only
        self._pinned: int | None = None
        self.damaged: tuple[int, ...] = ()
        """The checkpoints that the last `restore` skipped."""
        self._prepared: tuple[int, Any] | None = None
        self._written, self._attempts = self._prepared, 0
        self._writing, self._failed_here = False, False
        if not read_only:
            self._remove_partial_saves()
        self._manager = self._open()
        self._saved_at, self._pause = time.monotonic(), 0.0

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_PreservationPolicy(self._keep, lambda: self._pinned),
            enable_async_checkpointing=True,
            async_options=ocp.options.AsyncOptions(barrier_sync_fn=self._barrier),
            # A single process removes them itself: Orbax does it during the first saves, and fails if files are gone.
            cleanup_tmp_directories=not self._read_only and jax.process_count() > 1,
            create=not self._read_only,
        )
        return ocp.CheckpointManager(LiteralPath(self._folder), options=options, handler_registry=make_handlers())

    def _barrier(self, *, key: str, timeout_ms: int) -> None:
        """Wait in one of Orbax's threads for all processes, unless it comes here because of a failure."""
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
            # The error that ended the run matters more than this one.
            if kind is None:
                raise
        finally:
            self._manager.close()

    def pin(self, step: int) -> None:
        """Keep the checkpoint of `step`, if there is one, in addition to the newest ones, until another is pinned."""
        self._pinned = step

    def steps(self) -> list[int]:
        """The steps of all checkpoints in ascending order, including the one being written."""
        prepared = () if self._prepared is None else (self._prepared[0],)
        return sorted({*self._manager.all_steps(), *prepared})

    def save(self, state: TrainState, position: PositionDocument, *, later: bool = False) -> None:
        """Start writing `state` in the background; does nothing if its step is already saved.

        The state is copied first, because the next training step donates its memory.

        Args:
          state: the training state.
          position: the run's position.
          later: only copy the state now. `start_writing`, `should_save`, `wait` or the next save starts writing, as
            Orbax's threads keep the interpreter busy, which would slow down the start of a stage.

        Raises:
          SaveError: if writing cannot start, or the previous save, still in progress until now, has failed.
        """
        # Even if this save fails, the next attempt comes after the usual time.
        self._saved_at = time.monotonic()
        self.check()
        self.wait()
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._remove_partial_saves()
        # Orbax's threads would wait for minutes to use a folder that is not writable. Its partial checkpoints, which it
        # may be removing at this moment, have other names.
        check_writable(self._folder / f".trial-{jax.process_index()}")
        copy = jax.tree.map(jnp.copy, state)
        document = {"place": position, "sha256": _checksum(copy, position)}
        saved = ocp.args.StandardSave(present_fields(copy))  # pyright: ignore
        items = ocp.args.Composite(state=saved, run=ocp.args.JsonSave(document))  # pyright: ignore
        self._prepared, self._attempts = (step, items), 1
        if not later:
            self.start_writing()

    def start_writing(self) -> None:
        """Start writing a state that was saved for later, if there is one.

        Raises:
          SaveError: if writing cannot start.
        """
        if self._prepared is None:
            return
        self._written, self._prepared = self._prepared, None
        self.check()
        self._writing = True
        try:
            self._manager.save(self._written[0], args=self._written[1], force=True)
        except (OSError, ValueError) as error:
            return self._try_again(error)
        self._saved_at = time.monotonic()

    def should_save(self, every_seconds: float) -> bool:
        """Whether `every_seconds` have passed since the last save or the opening, and no save is in progress.

        After `postpone`, a pause takes the place of `every_seconds` until a save succeeds.

        Raises:
          SaveError: if the save in progress has failed since the last call, or cannot start.
        """
        self.start_writing()
        if self._writing and (self._failed_here or not self._manager.is_saving_in_progress()):
            self.wait()
        return not self._writing and time.monotonic() - self._saved_at >= (self._pause or every_seconds)

    def postpone(self) -> None:
        """After a failed save, let the next one be due after a pause, which doubles from each failure to the next."""
        self._saved_at, self._pause = time.monotonic(), min(max(1.0, 2 * self._pause), LONGEST_PAUSE)

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
          SaveError: if the save in progress fails; each failure is raised once.
        """
        self.start_writing()
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            self._try_again(error)
            return self.wait()
        if self._writing:
            self._writing, self._pause, self._written = False, 0.0, None

    def _try_again(self, error: Exception) -> None:
        """Start writing once more after an error that may pass.

        Raises:
          SaveError: if it may not, or after several attempts.
        """
        failed = self._failed(error)
        interrupted = was_interrupted(error) and jax.process_count() == 1
        if self._written is None or self._attempts == MOST_ATTEMPTS or not interrupted:
            self._written = None
            raise failed from error
        self._prepared, self._attempts = self._written, self._attempts + 1
        self.start_writing()

    def _failed(self, error: Exception) -> SaveError:
        """Prepare for the next attempt; return an error that says why this one failed."""
        self._writing = False
        self.check()
        # One of several processes must not open it alone: opening waits for the others.
        if jax.process_count() == 1:
            # After a failed save, closing the manager raises its error again.
            with contextlib.suppress(OSError, ValueError):
                self._manager.close()
            self._remove_partial_saves()
            self._manager = self._open()
        return checkpoint_error(error)

    def _remove_partial_saves(self) -> None:
        """Remove the remains of failed saves; only while no save is in progress."""
        if jax.process_count() == 1:
            for partial in self._folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(partial, ignore_errors=True)

    def delete_after(self, step: int) -> None:
        """Remove every checkpoint of a step later than `step`."""
        self.check()
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def restore(
        self, like: TrainState, report: Callable[[str], None], *, up_to: int | None = None
    ) -> tuple[TrainState, PositionDocument] | None:
        """Restore the newest checkpoint that is intact; None if there is no checkpoint.

        Unless `read_only`, damaged ones are set aside: renamed `damaged-STEP`, which neither Orbax nor a resume reads.

        Args:
          like: a state with the right tree, shapes, dtypes and shardings; its values do not matter.
          report: called with a message for each damaged checkpoint that is skipped.
          up_to: the last step to consider; by default all of them.

        Raises:
          InputError: if there are checkpoints but none is intact.
          ReadError: if one cannot be read for a reason that may pass; nothing is changed then.
        """
        steps = [step for step in sorted(self._manager.all_steps(), reverse=True) if up_to is None or step <= up_to]
        restored, faults = self._restore_newest(steps, like)
        names = {} if restored is None or self._read_only else self._set_aside(tuple(faults))
        for step, fault in faults.items():
            moved = f", and set aside as {names[step]}" if step in names else ""
            report(f"checkpoint {step} is damaged ({fault}): it is skipped{moved}")
        if steps and restored is None:
            raise InputError(f"none of the {len(steps)} checkpoints is intact: start again in another workdir")
        self.damaged = tuple(faults)
        return restored

    def _restore_newest(
        self, steps: Sequence[int], like: TrainState
    ) -> tuple[tuple[TrainState, PositionDocument] | None, dict[int, str]]:
        """The first of these checkpoints that is intact, and what is wrong with each one before it."""
        faults: dict[int, str] = {}
        for step in steps:
            try:
                return read_patiently(partial(self._restore, step, like), self._folder / str(step)), faults
            except Exception as error:
                if isinstance(error, ReadError) or is_out_of_memory(error):
                    raise
                faults[step] = describe_error(error)
        return None, faults

    def _set_aside(self, steps: Sequence[int]) -> dict[int, str]:
        """Rename damaged checkpoints, so that nothing takes them for good ones; returns their new names."""
        if not steps:
            return {}
        names = multihost.broadcast_from_first(lambda: [set_aside(self._folder, step) for step in steps])
        self._manager.reload()
        return dict(zip(steps, names, strict=True))

    def _restore(self, step: int, like: TrainState) -> tuple[TrainState, PositionDocument]:
        abstract = present_fields(jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), run=ocp.args.JsonRestore())  # pyright: ignore
        restored = self._manager.restore(step, args=items)
        state, document = TrainState(**restored["state"]._asdict()), restored["run"]
        if _checksum(state, document["place"]) != document["sha256"]:
            raise ValueError("its contents do not match its checksum")
        return state, document["place"]


class _PreservationPolicy:
    """Decides for Orbax which checkpoints to keep: the newest ones and the pinned one."""

    def __init__(self, newest: int, pinned: Callable[[], int | None]):
        self._newest, self._pinned = newest, pinned

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """For each checkpoint, in order of steps, whether to keep it."""
        older = max(0, len(checkpoints) - self._newest)
        return [index >= older or each.step == self._pinned() for index, each in enumerate(checkpoints)]


def _checksum(state: TrainState, position: PositionDocument) -> str:
    """SHA-256 over the state and the position together, so that neither can come from another checkpoint."""
    return hashlib.sha256((digest(state) + json.dumps(position, sort_keys=True)).encode()).hexdigest()
