"""One epoch: its steps, its scores, its record, and the checkpoints in between."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterator

import jax
import numpy as np

from stepwise_jax.data.batches import Inputs
from stepwise_jax.data.sampler import calls, steps_in_call
from stepwise_jax.functional.metrics import Scores
from stepwise_jax.functional.optimizers import set_hyperparameters
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale
from stepwise_jax.runtime.signals import Stopped
from stepwise_jax.training import failures, saving
from stepwise_jax.training.evaluation import score
from stepwise_jax.training.progress import Position
from stepwise_jax.training.session import Session
from stepwise_jax.training.timing import Profile, traced
from stepwise_jax.workdir.files import PROFILE
from stepwise_jax.workdir.records import EpochRecord, StepsRecord

# Calls that may be under way on the device before the host waits for the oldest: enough that the device never waits,
# few enough that a signal or a loss that is not finite is noticed at once.
CALLS_IN_FLIGHT = 2


def run_epoch_traced(
    session: Session, stage: Stage, state: TrainState, position: Position
) -> tuple[TrainState, Position]:
    """As `run_epoch`, with a profiler trace where `session.profile` asks for this epoch."""
    if session.profile != Profile(position.stage, position.epoch):
        return run_epoch(session, stage, state, position)
    folder = session.folder / PROFILE
    with traced(folder):
        done = run_epoch(session, stage, state, position)
    text = (
        f"stage {position.stage}, epoch {position.epoch} is traced in {folder}: TensorBoard, XProf or Perfetto opens it"
    )
    session.log.event("profile", text)
    return done


def run_epoch(session: Session, stage: Stage, state: TrainState, position: Position) -> tuple[TrainState, Position]:
    """Trains from `position` to the end of its epoch, scores the test set where that is due, and records both."""
    rate = learning_rate_at(stage, position.epoch)
    assert stage.momentum is not None
    assert stage.weight_decay is not None
    opt_state = set_hyperparameters(
        state.opt_state, learning_rate=rate, momentum=stage.momentum, weight_decay=stage.weight_decay
    )
    state, position = run_steps(session, stage, state._replace(opt_state=opt_state), position)
    if position.epoch == stage.epochs:
        session.clock.pause()
    scores = None
    if position.epoch % session.experiment.evaluation.every_epochs == 0 or position.epoch == stage.epochs:
        scores = _score_or_stop(session, state, position)
        position = dataclasses.replace(position, best_top1=max(scores.top1, position.best_top1 or 0.0))
    _record(session, stage, rate, position, scores)
    session.clock.reset()
    return state, dataclasses.replace(position, epoch=position.epoch + 1, step=0, loss_sum=0.0, seconds={})


def _score_or_stop(session: Session, state: TrainState, position: Position) -> Scores:
    """Scores the test set; after a signal the run stops between two batches, to score all of it when it goes on."""
    try:
        with session.clock.measure("evaluate"):
            return score(session, state)
    except Stopped:
        save_or_stop(session, state, position, due=True)
        raise


def run_steps(session: Session, stage: Stage, state: TrainState, position: Position) -> tuple[TrainState, Position]:
    """The steps of one epoch that are not done yet, several under way on the device at a time."""
    under_way: deque[jax.Array] = deque()
    started, fed_before = time.perf_counter(), position.examples_seen
    for inputs in _timed_inputs(session, stage, position):
        with session.clock.measure("train"):
            ahead = sum(len(losses) for losses in under_way)
            # The pause between two stages ends before the call: on a CPU that lasts as long as its steps.
            session.programs.prepare_train(state, session.train.examples, inputs)
            _record_switch(session, position)
            with jax.profiler.StepTraceAnnotation("train", step_num=position.updates + ahead):
                state, losses = session.programs.train(state, session.train.examples, inputs)
            under_way.append(losses)
            while len(under_way) > CALLS_IN_FLIGHT:
                position = wait_for_losses(stage, position, under_way.popleft())
        speed = (position.examples_seen - fed_before) / (time.perf_counter() - started)
        loss = position.loss_sum / position.step if position.step else None
        session.log.show(StepsRecord(position.epoch, stage.epochs, position.examples_seen, speed, loss))
        session.stop.exchange(_save_is_due_here(session))
        if session.stop or save_is_due(session):
            position = _wait_for_all(session, stage, position, under_way)
            if position.step < stage.updates_per_epoch:
                save_or_stop(session, state, position, due=True)
    return state, _wait_for_all(session, stage, position, under_way)


def _record_switch(session: Session, position: Position) -> None:
    pause = session.clock.resume()
    if pause is not None:
        text = f"stage {position.stage} began {1000 * pause:.1f} ms after the last step of stage {position.stage - 1}"
        session.log.event("switch", f"{text}, evaluation and checkpoint aside")


def _timed_inputs(session: Session, stage: Stage, position: Position) -> Iterator[Inputs]:
    """What each call works on, on the devices; the time that this takes is what training waits for input."""
    left = range(position.updates, position.updates + stage.updates_per_epoch - position.step)
    steps = steps_in_call(stage.updates_per_epoch, session.experiment.steps_per_call)
    feeding = session.train.calls(session.order, calls(left, steps))
    while True:
        with session.clock.measure("input_wait"):
            inputs = next(feeding, None)
        if inputs is None:
            return
        yield inputs


def wait_for_losses(stage: Stage, position: Position, losses: jax.Array) -> Position:
    """Waits for one call's losses [k] and counts its steps.

    Raises:
      NonFiniteLossError: with the step, the rate and the batch.
    """
    values = np.asarray(losses, np.float64).tolist()
    loss_sum = position.loss_sum
    for offset, value in enumerate(values, start=1):
        if not math.isfinite(value):
            raise failures.non_finite_loss(f"the loss is {value}", stage, position, position.updates + offset)
        # Added one by one, so that the sum does not depend on where a run was stopped.
        loss_sum += value
    return dataclasses.replace(
        position,
        step=position.step + len(values),
        updates=position.updates + len(values),
        examples_seen=position.examples_seen + len(values) * stage.batch_size,
        loss_sum=loss_sum,
    )


def _wait_for_all(session: Session, stage: Stage, position: Position, under_way: deque[jax.Array]) -> Position:
    with session.clock.measure("train"):
        while under_way:
            position = wait_for_losses(stage, position, under_way.popleft())
    return position


def _record(session: Session, stage: Stage, rate: float, position: Position, scores: Scores | None) -> None:
    record = EpochRecord(
        stage=position.stage,
        stage_name=stage.name,
        epoch=position.epoch,
        step=position.updates,
        examples_seen=position.examples_seen,
        updates=position.updates,
        learning_rate=rate,
        batch_size=stage.batch_size,
        noise_scale=noise_scale(stage, rate),
        train_loss=position.loss_sum / position.step,
        test_loss=scores.loss if scores else None,
        top1=scores.top1 if scores else None,
        top5=scores.top5 if scores else None,
        best_top1=position.best_top1,
        seconds=session.clock.read(),
    )
    session.log.record(record)


def save_is_due(session: Session) -> bool:
    """Whether a checkpoint is due on all processes."""
    return session.stop.due(_save_is_due_here(session))


def _save_is_due_here(session: Session) -> bool:
    return saving.is_due(session)


def save_or_stop(session: Session, state: TrainState, position: Position, *, due: bool, later: bool = False) -> None:
    """Saves where that is due, and before the run stops for a signal.

    Raises:
      InterruptedRunError: after the state is on disk, if a signal has come.
      UnsavedError: if it has come and the state is not on disk.
    """
    session.stop.synchronize()
    if due or session.stop:
        with session.clock.measure("checkpoint"):
            placed = dataclasses.replace(position, seconds=session.clock.read())
            saving.save(session, state, placed, later=later)
    if session.stop:
        saving.stop(session, position)
