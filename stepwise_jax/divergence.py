"""A loss that is not finite: where it came up, and what `on_nan` makes of it.

Going back means to begin the stage anew, from the checkpoint that ended the one before it, with a tenth of its rates: a
place that no clock decides, so that a run that is killed on the way takes the same turns when it goes on.
"""

import dataclasses
from collections.abc import Sequence

from stepwise_jax.errors import NonFiniteLossError, UnsavedError
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage, learning_rate_at
from stepwise_jax.progress import Progress, progress_from, updates_before
from stepwise_jax.session import Session

LOWER = 0.1
"""What a stage's rates are multiplied by when it is begun anew: the paper's gamma, the step of its own schedule."""

MOST = 3
"""Times that one stage is begun anew: at a thousandth of its rate, the rate is not what is wrong."""


def not_finite(what: str, stage: Stage, progress: Progress, update: int) -> NonFiniteLossError:
    """The error that names the step, the rate and the batch; `what` is "the loss is nan", say."""
    rate = learning_rate_at(stage, min(progress.epoch, stage.epochs))
    return NonFiniteLossError(
        f"{what} at update {update} (stage {progress.stage} {stage.name}, epoch {progress.epoch}, "
        f"learning rate {rate:g}, batch size {stage.batch_size}): a lower plan.learning_rate may help"
    )


def with_setbacks(session: Session, planned: Sequence[Stage], setbacks: Sequence[int]) -> Session:
    """The session whose stages have the rates that are left of the planned ones after some setbacks."""
    stages = tuple(_lowered(stage, LOWER ** setbacks.count(number)) for number, stage in enumerate(planned, start=1))
    return dataclasses.replace(session, stages=stages)


def _lowered(stage: Stage, factor: float) -> Stage:
    if factor == 1:
        return stage
    rates = None if stage.epoch_rates is None else tuple(factor * rate for rate in stage.epoch_rates)
    return dataclasses.replace(stage, learning_rate=factor * stage.learning_rate, epoch_rates=rates)


def go_back(
    session: Session, planned: Sequence[Stage], progress: Progress, error: NonFiniteLossError
) -> tuple[Session, TrainState, Progress]:
    """Begins the stage of `progress` anew with lower rates, where `on_nan` asks for that.

    Args:
      session: what the run goes on with.
      planned: the stages before any setback.
      progress: where the stage was entered, or gone on with.
      error: what happened in it.

    Returns:
      The session with the lowered stage, and the state and place that it starts from.

    Raises:
      NonFiniteLossError: the given one, where `on_nan` is "stop" or the stage was begun anew often enough.
    """
    number = progress.stage
    if session.experiment.on_nan == "stop":
        raise error
    if progress.setbacks.count(number) >= MOST:
        raise NonFiniteLossError(f"{error}; the stage was begun anew {MOST} times, each with a tenth of the rate")
    start = updates_before(session.stages, number)
    try:
        session.checkpoints.wait()
    except UnsavedError as unsaved:
        session.note("unsaved", f"WARNING: {unsaved}")
    if start and start not in session.checkpoints.steps():
        raise NonFiniteLossError(f"{error}; the checkpoint of the stage's start, after update {start}, is not there")
    session.checkpoints.delete_after(start)
    state, begun = session.initial(), Progress()
    restored = session.checkpoints.restore(state, lambda message: session.note("fallback", message))
    if restored is not None:
        state, begun = restored[0], progress_from(restored[1])
    begun = dataclasses.replace(begun, setbacks=(*progress.setbacks, number))
    session = with_setbacks(session, planned, begun.setbacks)
    rate = session.stages[number - 1].learning_rate
    session.note("back", f"{error}; going back to update {start}: stage {number} begins anew at {rate:g}")
    session.clock.reset(begun.seconds)
    return session, state, begun
