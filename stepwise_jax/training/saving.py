"""Saving while training goes on: what cannot be written is told and tried again, and only a run's end insists.

A disk that is full or read-only costs the checkpoints of its time, never the training: the last good one is kept.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from stepwise_jax.errors import InterruptedRunError, SaveError
from stepwise_jax.functional.state import TrainState
from stepwise_jax.training import failures
from stepwise_jax.training.progress import Position
from stepwise_jax.training.session import Session


def is_due(session: Session) -> bool:
    """Whether a save is due; one that has failed in the background since the last call is told."""
    with _failure_told(session):
        return session.checkpoints.due(session.experiment.checkpoint.every_seconds)
    return False


def save(session: Session, state: TrainState, position: Position, *, later: bool = False) -> None:
    """Starts writing a checkpoint, whose records are on disk before it.

    A state that is not finite is never written, and at the end of a stage it is what a loss would be one step later.

    Args:
      session: the run.
      state: what to save.
      position: where it belongs.
      later: writing begins when `is_due` is asked, or anything else of the checkpoints: after the next call.

    Raises:
      NonFiniteLossError: for such a state at the end of a stage.
    """
    if not is_finite(state):
        _refuse_at_end(session, position)
        session.log.event("unsaved", f"the state after update {position.updates} is not finite: it is not saved")
        return
    with _failure_told(session):
        # First the one that was under way, so that its failure does not stand in the way of this one.
        session.checkpoints.wait()
    with _failure_told(session):
        session.log.sync()
        session.checkpoints.save(state, position.document(), later=later)


def _refuse_at_end(session: Session, position: Position) -> None:
    if (position.epoch, position.step) == (1, 0):
        stage = session.stages[position.stage - 2]
        ended = dataclasses.replace(position, stage=position.stage - 1, epoch=stage.epochs)
        raise failures.non_finite_loss("the network is no longer finite", stage, ended, position.updates)


@contextmanager
def _failure_told(session: Session) -> Iterator[None]:
    """Tells of what cannot be written, and lets training go on."""
    try:
        yield
    except (SaveError, OSError) as error:
        told = error if isinstance(error, SaveError) else f"records.jsonl cannot be written ({error.strerror})"
        if jax.process_count() > 1:
            # The other processes wait where this one failed: all of them end, and can be run again.
            raise SaveError(f"{told}: run the same command to go on from the last good checkpoint") from error
        session.log.event("unsaved", f"WARNING: {told}: training goes on, {_kept(session)}, and saving is tried again")


def _kept(session: Session) -> str:
    steps = session.checkpoints.steps()
    return f"the last good checkpoint, after update {steps[-1]}, is kept" if steps else "there is no checkpoint yet"


def stop(session: Session, position: Position) -> NoReturn:
    """Ends the run for the signal that has come, once what was being saved is on disk.

    Raises:
      InterruptedRunError: if the place is on disk; running the same command goes on from there.
      UnsavedError: if it is not.
    """
    with _failure_told(session):
        session.checkpoints.wait()
    stopped = f"stopped by {session.stop.name} after {position.updates} updates"
    if position.updates and position.updates not in session.checkpoints.steps():
        raise SaveError(f"{stopped}, which could not be saved; {_kept(session)}: run the same command to go on")
    stopped += ": run the same command to go on"
    # On the record only: the command ends with this sentence.
    session.log.write_event("stop", stopped)
    raise InterruptedRunError(stopped)


def save_final(session: Session, state: TrainState, position: Position) -> None:
    """Returns when the final state and the records are on disk; what failed before is tried once more.

    Raises:
      UnsavedError: if the disk still refuses.
    """
    try:
        with _failure_told(session):
            session.checkpoints.wait()
        session.log.sync()
        session.checkpoints.save(state, position.document())
        session.checkpoints.wait()
    except OSError as error:
        raise SaveError(f"records.jsonl cannot be written ({error.strerror}): {_advice(session)}") from error
    except SaveError as error:
        raise SaveError(f"training is done, but {error}: {_advice(session)}") from error


def _advice(session: Session) -> str:
    return f"{_kept(session)}; make room and run the same command to go on from there"


def is_finite(state: TrainState) -> bool:
    """Whether every number of a state is finite."""
    leaves = [np.asarray(leaf) for leaf in jax.device_get(jax.tree.leaves(state))]
    return all(np.isfinite(leaf).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))
