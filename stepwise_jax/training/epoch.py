"""One epoch: its steps, its scores, its record, and the checkpoints in between."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterator

import jax
import numpy as np

from stepwise_jax.data.batches import Inputs
from stepwise_jax.data.sampler import split_into_calls, steps_in_call
from stepwise_jax.functional.metrics import Scores
from stepwise_jax.functional.optimizers import set_hyperparameters
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale
from stepwise_jax.runtime.signals import Stopped
from stepwise_jax.training import failures, saving
from stepwise_jax.training.evaluation import score_test_set
from stepwise_jax.training.progress import Position
from stepwise_jax.training.session import Session
from stepwise_jax.training.timing import ProfiledEpoch, profiler_trace
from stepwise_jax.workdir.files import PROFILE
from stepwise_jax.workdir.records import EpochRecord, StepsRecord

# Training calls in flight on the device before the host waits for the oldest: enough that the device never idles, few
# enough that a signal or a loss that is not finite is noticed at once.
CALLS_IN_FLIGHT = 2


def run_epoch_with_profile(
    session: Session, stage: Stage, state: TrainState, position: Position
) -> tuple[TrainState, Position]:
    """Run an epoch, with a profiler trace if it is the epoch of `session.profile`."""
    if session.profile != ProfiledEpoch(position.stage, position.epoch):
        return run_epoch(session, stage, state, position)
    folder = session.folder / PROFILE
    with profiler_trace(folder):
        result = run_epoch(session, stage, state, position)
    message = (
        f"traced stage {position.stage}, epoch {position.epoch} to {folder}: open it in TensorBoard, XProf or Perfetto"
    )
    session.log.event("profile", message)
    return result


def run_epoch(session: Session, stage: Stage, state: TrainState, position: Position) -> tuple[TrainState, Position]:
    """Train from `position` to the end of its epoch, score the test set if that is due, and record both."""
    rate = learning_rate_at(stage, position.epoch)
    assert stage.momentum is not None
    assert stage.weight_decay is not None
    opt_state = set_hyperparameters(
        state.opt_state, learning_rate=rate, momentum=stage.momentum, weight_decay=stage.weight_decay
    )
    state, position = run_steps(session, stage, state._replace(opt_state=opt_state), position)
    if position.epoch == stage.epochs:
        session.timer.pause()
    scores = None
    if position.epoch % session.experiment.evaluation.every_epochs == 0 or position.epoch == stage.epochs:
        scores = _score_or_stop(session, state, position)
        position = dataclasses.replace(position, best_top1=max(scores.top1, position.best_top1 or 0.0))
    _record_epoch(session, stage, rate, position, scores)
    session.timer.reset()
    return state, dataclasses.replace(position, epoch=position.epoch + 1, step=0, loss_sum=0.0, seconds={})


def _score_or_stop(session: Session, state: TrainState, position: Position) -> Scores:
    """Score the test set. A signal stops the run between two batches; a resumed run scores the whole set."""
    try:
        with session.timer.measure("evaluate"):
            return score_test_set(session, state)
    except Stopped:
        save_or_stop(session, state, position, due=True)
        raise


def run_steps(session: Session, stage: Stage, state: TrainState, position: Position) -> tuple[TrainState, Position]:
    """Run the remaining steps of one epoch, with several calls in flight on the device."""
    in_flight: deque[jax.Array] = deque()
    started, seen_before = time.perf_counter(), position.examples_seen
    for inputs in _timed_inputs(session, stage, position):
        with session.timer.measure("train"):
            ahead = sum(len(losses) for losses in in_flight)
            # The pause between two stages ends before the call, which on a CPU lasts as long as its steps.
            session.compiled.compile_train(state, session.train_loader.examples, inputs)
            _record_switch(session, position)
            with jax.profiler.StepTraceAnnotation("train", step_num=position.updates + ahead):
                state, losses = session.compiled.train(state, session.train_loader.examples, inputs)
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
    return state, _wait_for_all(session, stage, position, in_flight)


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


def _record_epoch(session: Session, stage: Stage, rate: float, position: Position, scores: Scores | None) -> None:
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
        seconds=session.timer.read(),
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
