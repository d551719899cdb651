"""Failures during training: a loss that is not finite, and a device without memory left."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stepwise_jax.errors import DeviceMemoryError, NonFiniteLossError, SaveError
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage, learning_rate_at
from stepwise_jax.training.progress import Position, position_from, updates_before
from stepwise_jax.training.session import Session

RATE_FACTOR = 0.1
"""What a stage's rates are multiplied by when it is begun anew: the paper's gamma, the step of its own schedule."""

MAX_RESTARTS = 3
"""Times that one stage is begun anew: at a thousandth of its rate, the rate is not what is wrong."""


def non_finite_loss(what: str, stage: Stage, position: Position, update: int) -> NonFiniteLossError:
    """The error that names the step, the rate and the batch; `what` is "the loss is nan", say."""
    rate = learning_rate_at(stage, min(position.epoch, stage.epochs))
    return NonFiniteLossError(
        f"{what} at update {update} (stage {position.stage} {stage.name}, epoch {position.epoch}, "
        f"learning rate {rate:g}, batch size {stage.batch_size}): a lower plan.learning_rate may help"
    )


def with_lowered_rates(session: Session, planned: Sequence[Stage], setbacks: Sequence[int]) -> Session:
    """The session whose stages have the rates that are left of the planned ones after some setbacks."""
    stages = tuple(
        _lowered(stage, RATE_FACTOR ** setbacks.count(number)) for number, stage in enumerate(planned, start=1)
    )
    return dataclasses.replace(session, stages=stages)


def _lowered(stage: Stage, factor: float) -> Stage:
    if factor == 1:
        return stage
    rates = None if stage.epoch_rates is None else tuple(factor * rate for rate in stage.epoch_rates)
    return dataclasses.replace(stage, learning_rate=factor * stage.learning_rate, epoch_rates=rates)


def restart_stage(
    session: Session, planned: Sequence[Stage], position: Position, error: NonFiniteLossError
) -> tuple[Session, TrainState, Position]:
    """Begins the stage of `position` anew with lower rates, where `on_nan` asks for that.

    Args:
      session: what the run goes on with.
      planned: the stages before any setback.
      position: where the stage was entered, or gone on with.
      error: what happened in it.

    Returns:
      The session with the lowered stage, and the state and place that it starts from.

    Raises:
      NonFiniteLossError: the given one, where `on_nan` is "stop" or the stage was begun anew often enough.
    """
    number = position.stage
    if session.experiment.on_nan == "stop":
        raise error
    if position.setbacks.count(number) >= MAX_RESTARTS:
        raise NonFiniteLossError(
            f"{error}; the stage was begun anew {MAX_RESTARTS} times, each with a tenth of the rate"
        )
    start = updates_before(session.stages, number)
    try:
        session.checkpoints.wait()
    except SaveError as unsaved:
        session.log.event("unsaved", f"WARNING: {unsaved}")
    if start and start not in session.checkpoints.steps():
        raise NonFiniteLossError(f"{error}; the checkpoint of the stage's start, after update {start}, is not there")
    session.checkpoints.delete_after(start)
    state, begun = session.initial(), Position()
    restored = session.checkpoints.restore(state, lambda message: session.log.event("fallback", message))
    if restored is not None:
        state, begun = restored[0], position_from(restored[1])
    begun = dataclasses.replace(begun, setbacks=(*position.setbacks, number))
    session = with_lowered_rates(session, planned, begun.setbacks)
    rate = session.stages[number - 1].learning_rate
    session.log.event("back", f"{error}; going back to update {start}: stage {number} begins anew at {rate:g}")
    session.clock.reset(begun.seconds)
    return session, state, begun


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

# XLA's sentences: "... trying to allocate 25.00GiB", "Attempting to reserve 15.5G", "Used 18.15G of 15.48G hbm",
# "request for 2147483648 bytes". What was asked for comes first in each.
_ASKED = re.compile(
    r"(?:allocat\w*|reserv\w*|request\w*|used)(?: for| request for)? (\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B|\b)", re.I
)


def bytes_asked(message: str) -> int | None:
    """The bytes that a device could not give, from XLA's message, or None where it does not say."""
    found = _ASKED.search(message)
    return round(float(found[1]) * _UNITS[found[2].upper()]) if found else None


def is_shortage(error: Exception) -> bool:
    """Whether JAX raised an error because a device has no memory left."""
    return isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


@contextmanager
def explain_out_of_memory(stage: Stage, number: int) -> Iterator[None]:
    """Turns what JAX raises where memory is short in stage `number`, from 1, into one sentence.

    Raises:
      DeviceMemoryError: with the stage, its batch size, the bytes asked for, and what to change.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        asked = bytes_asked(str(error))
        wanted = "" if asked is None else f" ({asked:,} bytes were asked for)"
        raise DeviceMemoryError(
            f"the device has no memory left in stage {number} ({stage.name}), batch size {stage.batch_size}{wanted}: "
            "a smaller plan.batch_size, last factors of plan.batch_multipliers, evaluation.batch_size or "
            "data.image_size, or --data.delivery streamed, needs less; what is saved is kept"
        ) from error
