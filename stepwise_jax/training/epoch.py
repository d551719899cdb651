"""One epoch: its steps, its scores, its record, and the checkpoints in between."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from functools import partial

import jax
import numpy as np

from stepwise_jax.data.batches import Inputs
from stepwise_jax.data.sampler import split_into_calls, steps_in_call
from stepwise_jax.functional.optimizers import hyperparameters, set_hyperparameters
from stepwise_jax.functional.recipe import Recipe
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale
from stepwise_jax.runtime.signals import Stopped
from stepwise_jax.training import failures, saving
from stepwise_jax.training.measurements.evaluation import score_test_set
from stepwise_jax.training.measurements.noise import measure_noise
from stepwise_jax.training.measurements.timing import ProfiledEpoch, profiler_trace
from stepwise_jax.training.programs.step_functions import step_options
from stepwise_jax.training.progress import Position
from stepwise_jax.training.session import Session
from stepwise_jax.workdir.files import PROFILE
from stepwise_jax.workdir.records import EpochRecord, Record, StepsRecord

Steps = Generator[Record, None, tuple[TrainState, Position]]
"""Yields the records of a part of an epoch, and returns the state and the position after it."""

# Training calls in flight on the device before the host waits for the oldest: enough that the device never idles, few
# enough that a signal or a loss that is not finite is noticed at once.
CALLS_IN_FLIGHT = 2


def run_epoch_with_profile(session: Session, stage: Stage, state: TrainState, position: Position) -> Steps:
    """Run an epoch, with a profiler trace if it is the epoch of `session.profile`."""
    if session.profile != ProfiledEpoch(position.stage, position.epoch):
        return (yield from run_epoch(session, stage, state, position))
    folder = session.folder / PROFILE
    with profiler_trace(folder):
        result = yield from run_epoch(session, stage, state, position)
    message = (
        f"traced stage {position.stage}, epoch {position.epoch} to {folder}: open it in TensorBoard, XProf or Perfetto"
    )
    session.log.event("profile", message)
    return result


def run_epoch(session: Session, stage: Stage, state: TrainState, position: Position) -> Steps:
    """Train from `position` to the end of its epoch, score the test set if that is due, and record both."""
    rate = learning_rate_at(stage, position.epoch)
    opt_state = set_hyperparameters(state.opt_state, learning_rate=rate, **stage_hyperparameters(session.recipe, stage))
    state, position = yield from run_steps(session, stage, state._replace(opt_state=opt_state), position)
    if position.epoch == stage.epochs:
        session.timer.pause()
    scores = None
    if position.epoch % session.experiment.evaluation.every_epochs == 0 or position.epoch == stage.epochs:
        scores = _score_or_stop(session, stage, state, position)
        position = dataclasses.replace(position, best_top1=max(scores["top1"], position.best_top1 or 0.0))
    _record_epoch(session, stage, rate, position, scores)
    session.timer.reset()
    return state, dataclasses.replace(position, epoch=position.epoch + 1, step=0, loss_sum=0.0, seconds={})


def stage_hyperparameters(recipe: Recipe, stage: Stage) -> dict[str, float]:
    """Return the optimizer's hyperparameters in a stage: the recipe's, where the stage sets no others."""
    values = hyperparameters(recipe.optimizer)
    if recipe.clip_norm is not None:
        values["clip_norm"] = recipe.clip_norm
    named = {"momentum": stage.momentum, "weight_decay": stage.weight_decay}
    own = {name: value for name, value in named.items() if value is not None and name in values}
    return values | own | dict(stage.hyperparameters)


def _score_or_stop(session: Session, stage: Stage, state: TrainState, position: Position) -> dict[str, float]:
    """Score the test set, after measuring the noise at a stage's end. A signal stops the run between two batches.

    A resumed run does both from their start.
    """
    try:
        with session.timer.measure("evaluate"):
            if position.epoch == stage.epochs:
                measure_noise(session, state, position.stage, "end")
            return score_test_set(session, state)
    except Stopped:
        save_or_stop(session, state, position, due=True)
        raise


def run_steps(session: Session, stage: Stage, state: TrainState, position: Position) -> Steps:
    """Run the remaining steps of one epoch, with several calls in flight on the device."""
    in_flight: deque[jax.Array] = deque()
    started, seen_before = time.perf_counter(), position.examples_seen
    for inputs in _timed_inputs(session, stage, position):
        with session.timer.measure("train"):
            ahead = sum(len(losses) for losses in in_flight)
            # The pause between two stages ends before the call, which on a CPU lasts as long as its steps.
            examples, options = session.train_loader.examples, step_options(stage)
            session.compiled.compile_train(state, examples, inputs, options)
            _record_switch(session, position)
            with jax.profiler.StepTraceAnnotation("train", step_num=position.updates + ahead):
                state, losses = session.compiled.train(state, examples, inputs, options)
            in_flight.append(losses)
            while len(in_flight) > CALLS_IN_FLIGHT:
                position = wait_for_losses(stage, position, in_flight.popleft())
        speed = (position.examples_seen - seen_before) / (time.perf_counter() - started)
        loss = position.loss_sum / position.step if position.step else None
        session.log.show(StepsRecord(position.epoch, stage.epochs, position.examples_seen, speed, loss))
        session.stop.exchange(saving.is_due(session))
        if session.stop or save_is_due(session):
            position = _wait_for_all(session, stage, position, in_flight)
            if position.step < stage.updates_per_epoch:
                save_or_stop(session, state, position, due=True)
        yield from yield_records(session, state, partial(_wait_for_all, session, stage, position, in_flight))
    return state, _wait_for_all(session, stage, position, in_flight)


def yield_records(session: Session, state: TrainState, position: Position | Callable[[], Position]) -> Iterator[Record]:
    """Yield the records since the last time; save if the caller stops iterating.

    Args:
      session: the run.
      state: after the latest update.
      position: of the state, or a function that waits for it.
    """
    try:
        yield from session.log.take()
    except GeneratorExit:
        reached = position() if callable(position) else position
        saving.save(session, state, dataclasses.replace(reached, seconds=session.timer.read()))
        session.checkpoints.wait()
        raise


def _record_switch(session: Session, position: Position) -> None:
    pause = session.timer.resume()
    if pause is not None:
        message = (
            f"stage {position.stage} started {1000 * pause:.1f} ms after the last step of stage {position.stage - 1}"
        )
        session.log.event("switch", f"{message}, without evaluation and checkpoint")


def _timed_inputs(session: Session, stage: Stage, position: Position) -> Iterator[Inputs]:
    """Yield the inputs of each training call, on the devices, and time how long training waits for them."""
    remaining = range(position.updates, position.updates + stage.updates_per_epoch - position.step)
    steps = steps_in_call(stage.updates_per_epoch, session.experiment.steps_per_call)
    all_inputs = session.train_loader.stacked_batches(session.sampler, split_into_calls(remaining, steps))
    while True:
        with session.timer.measure("input_wait"):
            inputs = next(all_inputs, None)
        if inputs is None:
            return
        yield inputs


def wait_for_losses(stage: Stage, position: Position, losses: jax.Array) -> Position:
    """Wait for one call's losses [k] and count its steps.

    Raises:
      NonFiniteLossError: names the step, the learning rate and the batch size.
    """
    values = np.asarray(losses, np.float64).tolist()
    loss_sum = position.loss_sum
    for offset, value in enumerate(values, start=1):
        if not math.isfinite(value):
            raise failures.non_finite_loss_error(f"the loss is {value}", stage, position, position.updates + offset)
        # Added one by one, so that the sum does not depend on where a run stopped.
        loss_sum += value
    return dataclasses.replace(
        position,
        step=position.step + len(values),
        updates=position.updates + len(values),
        examples_seen=position.examples_seen + len(values) * stage.batch_size,
        loss_sum=loss_sum,
    )


def _wait_for_all(session: Session, stage: Stage, position: Position, in_flight: deque[jax.Array]) -> Position:
    with session.timer.measure("train"):
        while in_flight:
            position = wait_for_losses(stage, position, in_flight.popleft())
    return position


def _record_epoch(
    session: Session, stage: Stage, rate: float, position: Position, scores: dict[str, float] | None
) -> None:
    reached = scores or {}
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
        test_loss=reached.get("loss"),
        top1=reached.get("top1"),
        top5=reached.get("top5"),
        best_top1=position.best_top1,
        seconds=session.timer.read(),
        metrics=reached,
    )
    session.log.record(record)


def save_is_due(session: Session) -> bool:
    """Return whether a checkpoint is due, as agreed by all processes."""
    return session.stop.save_is_due(saving.is_due(session))


def save_or_stop(session: Session, state: TrainState, position: Position, *, due: bool, later: bool = False) -> None:
    """Save if that is due, or if a signal requests a stop; then stop if requested.

    Raises:
      InterruptedRunError: after a signal, once the state is on disk.
      SaveError: after a signal, if the state is not on disk.
    """
    session.stop.synchronize()
    if due or session.stop:
        with session.timer.measure("checkpoint"):
            timed = dataclasses.replace(position, seconds=session.timer.read())
            saving.save(session, state, timed, later=later)
    if session.stop:
        saving.stop_for_signal(session, position)
