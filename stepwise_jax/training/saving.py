"""Saving during training: a failed save is reported and retried, and is an error only at the end of a run.

A disk that is full or read-only delays checkpoints, but does not stop training. The last good checkpoint is kept.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from stepwise_jax.errors import InterruptedRunError, SaveError
from stepwise_jax.formatting import format_count
from stepwise_jax.functional.state import TrainState
from stepwise_jax.training import failures
from stepwise_jax.training.progress import Position
from stepwise_jax.training.session import Session
from stepwise_jax.workdir.writing import write_advice


def is_due(session: Session) -> bool:
    """Return whether a save is due; report a background save that has failed since the last call."""
    with _report_failure(session):
        return session.checkpoints.should_save(session.experiment.checkpoint.every_seconds)
    return False


def save(session: Session, state: TrainState, position: Position, *, later: bool = False) -> None:
    """Start to write a checkpoint, after flushing its records to disk.

    A state that is not finite is never written. At the end of a stage it is an error, as the next loss would be.

    Args:
      session: the run.
      state: what to save.
      position: the position of the state.
      later: start writing only at the next use of the checkpoints, such as `is_due`: after the next training call.

    Raises:
      NonFiniteLossError: if the state is not finite at the end of a stage.
    """
    if not is_finite(state):
        _raise_at_stage_end(session, position)
        session.log.event("unsaved", f"the state after update {position.updates} is not finite: it is not saved")
        return
    with _report_failure(session):
        # Wait for the previous save first, so that its failure does not prevent this one.
        session.checkpoints.wait()
    with _report_failure(session):
        session.log.sync()
        session.checkpoints.save(state, position.document(), later=later)


def _raise_at_stage_end(session: Session, position: Position) -> None:
    if (position.epoch, position.step) == (1, 0):
        stage = session.stages[position.stage - 2]
        ended = dataclasses.replace(position, stage=position.stage - 1, epoch=stage.epochs)
        raise failures.non_finite_loss_error("the network is no longer finite", stage, ended, position.updates)


@contextmanager
def _report_failure(session: Session) -> Iterator[None]:
    """Report a failed write, once a minute, and let training continue; the next attempt comes after a pause."""
    try:
        yield
    except (SaveError, OSError) as error:
        message = error if isinstance(error, SaveError) else f"records.jsonl cannot be written ({error.strerror})"
        if jax.process_count() > 1:
            # The other processes wait for this one: all of them exit, and the run can be resumed.
            raise SaveError(f"{message}: run the same command to continue from the last good checkpoint") from error
        session.checkpoints.postpone()
        warning = f"WARNING: {message}: training continues, {_last_checkpoint(session)}, and saving will be tried again"
        session.log.warn("unsaved", str(message), warning)


def _last_checkpoint(session: Session) -> str:
    steps = session.checkpoints.steps()
    return f"the last good checkpoint, after update {steps[-1]}, is kept" if steps else "there is no checkpoint yet"


def stop_for_signal(session: Session, position: Position) -> NoReturn:
    """Stop the run after a signal, once the pending save is on disk.

    Raises:
      InterruptedRunError: if the position is on disk; the same command resumes from there.
      SaveError: if it is not.
    """
    with _report_failure(session):
        session.checkpoints.wait()
    stopped = f"stopped by {session.stop.name} after {format_count(position.updates, 'update')}"
    if position.updates and position.updates not in session.checkpoints.steps():
        raise SaveError(
            f"{stopped}, which could not be saved; {_last_checkpoint(session)}: run the same command to continue"
        )
    stopped += ": run the same command to continue"
    # Not shown to observers: the command prints this message when it exits.
    session.log.write_event("stop", stopped)
    raise InterruptedRunError(stopped)


def save_final(session: Session, state: TrainState, position: Position) -> None:
    """Return when the final state and the records are on disk, after retrying a save that failed.

    Raises:
      SaveError: if they still cannot be written.
    """
    try:
        with _report_failure(session):
            session.checkpoints.wait()
        session.log.sync()
        session.checkpoints.save(state, position.document())
        session.checkpoints.wait()
    except OSError as error:
        raise SaveError(f"records.jsonl cannot be written ({error.strerror}): {_advice(session, error)}") from error
    except SaveError as error:
        raise SaveError(f"training is done, but {error}: {_advice(session, error)}") from error


def _advice(session: Session, error: Exception) -> str:
    return f"{_last_checkpoint(session)}; {write_advice(error)} to continue from there"


def is_finite(state: TrainState) -> bool:
    """Return whether every number of a state is finite."""
    leaves = [np.asarray(leaf) for leaf in jax.device_get(jax.tree.leaves(state))]
    return all(np.isfinite(leaf).all() for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))
