"""Orbax checkpoints with checksums of our own: what is restored is what was saved, or the checkpoint before it.

Orbax leaves the previous step as the latest when a save is cut off, but restores a flipped byte or another dtype in
silence. So each checkpoint carries a digest of the state and of the place in training, and a restore computes it anew.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from stepwise_jax.errors import InputError, StepwiseError
from stepwise_jax.state import TrainState, digest

Place = dict[str, Any]
"""Where in training a checkpoint stands, as plain JSON data (`loop.Progress`)."""


class Checkpoints:
    """The checkpoints of one run, named by the optimiser steps done; a context that waits for the last save."""

    def __init__(self, folder: Path, keep: int, *, read_only: bool = False):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=not read_only,
            create=not read_only,
        )
        self._read_only = read_only
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self._saved_at = time.monotonic()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with _write_errors_told():
            self._manager.close()

    def save(self, state: TrainState, place: Place) -> None:
        """Starts writing `state` in the background; a place that is saved already is left as it is.

        The state is copied first, because the next training step takes over its memory.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        copy = jax.tree.map(jnp.copy, state)
        document = {"place": place, "sha256": _seal(copy, place)}
        items = ocp.args.Composite(state=ocp.args.StandardSave(copy), run=ocp.args.JsonSave(document))  # pyright: ignore
        with _write_errors_told():
            self._manager.save(step, args=items, force=True)
        self._saved_at = time.monotonic()

    def due(self, every_seconds: float) -> bool:
        """Whether so many seconds have passed since the last save, or the opening, and none is still being written."""
        return time.monotonic() - self._saved_at >= every_seconds and not self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Returns when everything is on disk."""
        with _write_errors_told():
            self._manager.wait_until_finished()

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
                report(f"checkpoint {step} is damaged ({_first_line(error)}); going back to the one before it")
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


@contextlib.contextmanager
def _write_errors_told() -> Iterator[None]:
    """Turns what Orbax raises of a save, also of one before this call, into one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = "the disk is full" if "No space left" in str(error) else _first_line(error)
        raise StepwiseError(
            f"the checkpoint cannot be written ({reason}): the last good one is kept, run the same command to go on"
        ) from error


def _seal(state: TrainState, place: Place) -> str:
    """SHA-256 over the state and the place: what was saved together belongs together."""
    return hashlib.sha256((digest(state) + json.dumps(place, sort_keys=True)).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]
