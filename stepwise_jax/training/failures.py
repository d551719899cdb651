"""Failures during training: a loss that is not finite, and a device that runs out of memory."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stepwise_jax.errors import DeviceMemoryError, NonFiniteLossError, SaveError, is_out_of_memory
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage, learning_rate_at
from stepwise_jax.training.progress import Position, position_from_document, updates_before
from stepwise_jax.training.session import Session

RESTART_RATE_FACTOR = 0.1
"""Factor of a stage's learning rates when it restarts: the paper's gamma, the decay of its own schedule."""

MAX_RESTARTS_PER_STAGE = 3
"""Restarts of one stage before the run gives up: at a thousandth of its learning rate, the rate is not the reason."""


def non_finite_loss_error(problem: str, stage: Stage, position: Position, update: int) -> NonFiniteLossError:
    """Return an error that names the step, the learning rate and the batch size; `problem` is "the loss is nan"."""
    rate = learning_rate_at(stage, min(position.epoch, stage.epochs))
    return NonFiniteLossError(
        f"{problem} at update {update} (stage {position.stage} {stage.name}, epoch {position.epoch}, "
        f"learning rate {rate:g}, batch size {stage.batch_size}): a lower plan.learning_rate may help"
    )


def lower_rates(session: Session, planned: Sequence[Stage], setbacks: Sequence[int]) -> Session:
    """Return the session with the planned learning rates, lowered once for each setback of a stage."""
    stages = tuple(
        _lower_rate(stage, RESTART_RATE_FACTOR ** setbacks.count(number))
        for number, stage in enumerate(planned, start=1)
    )
    return dataclasses.replace(session, stages=stages)


def _lower_rate(stage: Stage, factor: float) -> Stage:
    if factor == 1:
        return stage
    rates = None if stage.epoch_rates is None else tuple(factor * rate for rate in stage.epoch_rates)
    return dataclasses.replace(stage, learning_rate=factor * stage.learning_rate, epoch_rates=rates)


def restart_stage(
    session: Session, planned: Sequence[Stage], position: Position, error: NonFiniteLossError
) -> tuple[Session, TrainState, Position]:
    """Restart the stage of `position` with lower learning rates, if `on_nan` is "back".

    Args:
      session: the session of the run.
      planned: the stages before any setback.
      position: where this process started the stage, or resumed it.
      error: the failure in the stage.

    Returns:
      The session with the lower rates, and the state and position from which the stage starts.

    Raises:
      NonFiniteLossError: if `on_nan` is "stop", the stage has restarted too often, or its first checkpoint is missing.
    """
    number = position.stage
    if session.experiment.on_nan == "stop":
        raise error
    if position.setbacks.count(number) >= MAX_RESTARTS_PER_STAGE:
        raise NonFiniteLossError(
            f"{error}; the stage was restarted {MAX_RESTARTS_PER_STAGE} times, each with a tenth of the learning rate"
        )
    state, start = _restore_start(session, number, error)
    start = dataclasses.replace(start, setbacks=(*position.setbacks, number))
    session = lower_rates(session, planned, start.setbacks)
    rate = session.stages[number - 1].learning_rate
    session.log.event(
        "back", f"{error}; going back to update {start.updates}: stage {number} restarts with learning rate {rate:g}"
    )
    session.timer.reset(start.seconds)
    return session, state, start


def _restore_start(session: Session, number: int, error: NonFiniteLossError) -> tuple[TrainState, Position]:
    """Restore the start of stage `number` and delete the checkpoints after it.

    Raises:
      NonFiniteLossError: if the checkpoint is missing.
    """
    start = updates_before(session.stages, number)
    try:
        session.checkpoints.wait()
    except SaveError as unsaved:
        session.log.event("unsaved", f"WARNING: {unsaved}")
    if start and start not in session.checkpoints.steps():
        raise NonFiniteLossError(f"{error}; the checkpoint of the stage's start, after update {start}, is missing")
    initial = session.make_initial_state()
    # Later checkpoints are deleted only once this one is read.
    restored = session.checkpoints.restore(initial, lambda message: session.log.event("fallback", message), up_to=start)
    session.checkpoints.delete_after(start)
    return (initial, Position()) if restored is None else (restored[0], position_from_document(restored[1]))


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

# XLA's messages: "... trying to allocate 25.00GiB", "Attempting to reserve 15.5G", "Used 18.15G of 15.48G hbm",
# "request for 2147483648 bytes". The requested number comes first in each.
_REQUESTED = re.compile(
    r"(?:allocat\w*|reserv\w*|request\w*|used)(?: for| request for)? (\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B|\b)", re.I
)


def requested_bytes(message: str) -> int | None:
    """Return the bytes that a device could not allocate, from XLA's message, or None if it does not say."""
    found = _REQUESTED.search(message)
    return round(float(found[1]) * _UNITS[found[2].upper()]) if found else None


@contextmanager
def explain_out_of_memory(stage: Stage, number: int) -> Iterator[None]:
    """Turn JAX's out-of-memory error in stage `number`, from 1, into one sentence.

    Raises:
      DeviceMemoryError: names the stage, its batch size, the requested bytes, and what to change.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        requested = requested_bytes(str(error))
        amount = "" if requested is None else f" ({requested:,} bytes requested)"
        raise DeviceMemoryError(
            f"the device has no memory left in stage {number} ({stage.name}), batch size {stage.batch_size}{amount}: "
            "reduce plan.batch_size, the last factors of plan.batch_multipliers, evaluation.batch_size or "
            "data.image_size, or use --data.delivery streamed; the saved checkpoints are kept"
        ) from error
