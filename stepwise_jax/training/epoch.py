"""One epoch: its steps, its scores, its record, and the checkpoints in between."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterator

import jax
import numpy as np

from stepwise_jax.data.batches import Picked
from stepwise_jax.data.sampler import calls, steps_in_call
from stepwise_jax.functional.metrics import Scores
from stepwise_jax.functional.optimizers import set_hyperparameters
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale
from stepwise_jax.runtime.signals import Stopped
from stepwise_jax.training import failures, saving
from stepwise_jax.training.evaluation import score
from stepwise_jax.training.position import Progress
from stepwise_jax.training.session import Session
from stepwise_jax.training.timing import FOLDER, Profile, traced
from stepwise_jax.workdir.records import EpochRecord

# Calls that may be under way on the device before the host waits for the oldest: enough that the device never waits,
# few enough that a signal or a loss that is not finite is noticed at once.
CALLS_IN_FLIGHT = 2


def run_epoch_traced(
    session: Session, stage: Stage, state: TrainState, progress: Progress
) -> tuple[TrainState, Progress]:
    """As `run_epoch`, with a profiler trace where `session.profile` asks for this epoch."""
    if session.profile != Profile(progress.stage, progress.epoch):
        return run_epoch(session, stage, state, progress)
    folder = session.folder / FOLDER
    with traced(folder):
        done = run_epoch(session, stage, state, progress)
    text = (
        f"stage {progress.stage}, epoch {progress.epoch} is traced in {folder}: TensorBoard, XProf or Perfetto opens it"
    )
    session.note("profile", text)
    return done


def run_epoch(session: Session, stage: Stage, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """Trains from `progress` to the end of its epoch, scores the test set where that is due, and records both."""
    rate = learning_rate_at(stage, progress.epoch)
    assert stage.momentum is not None
    assert stage.weight_decay is not None
    opt_state = set_hyperparameters(
        state.opt_state, learning_rate=rate, momentum=stage.momentum, weight_decay=stage.weight_decay
    )
    state, progress = take_steps(session, stage, state._replace(opt_state=opt_state), progress)
    if progress.epoch == stage.epochs:
        session.clock.pause()
    scores = None
    if progress.epoch % session.experiment.evaluation.every_epochs == 0 or progress.epoch == stage.epochs:
        scores = _score_or_stop(session, state, progress)
        progress = dataclasses.replace(progress, best_top1=max(scores.top1, progress.best_top1 or 0.0))
    _record(session, stage, rate, progress, scores)
    session.clock.reset()
    return state, dataclasses.replace(progress, epoch=progress.epoch + 1, step=0, loss_sum=0.0, seconds={})


def _score_or_stop(session: Session, state: TrainState, progress: Progress) -> Scores:
    """Scores the test set; after a signal the run stops between two batches, to score all of it when it goes on."""
    try:
        with session.clock.measure("evaluate"):
            return score(session, state)
    except Stopped:
        save_or_stop(session, state, progress, due=True)
        raise


def take_steps(session: Session, stage: Stage, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """The steps of one epoch that are not done yet, several under way on the device at a time."""
    under_way: deque[jax.Array] = deque()
    started, fed_before = time.perf_counter(), progress.examples_seen
    for picked in _fed(session, stage, progress):
        with session.clock.measure("train"):
            ahead = sum(len(losses) for losses in under_way)
            # The pause between two stages ends before the call: on a CPU that lasts as long as its steps.
            session.programs.prepare_train(state, session.train.examples, picked)
            _note_switch(session, progress)
            with jax.profiler.StepTraceAnnotation("train", step_num=progress.updates + ahead):
                state, losses = session.programs.train(state, session.train.examples, picked)
            under_way.append(losses)
            while len(under_way) > CALLS_IN_FLIGHT:
                progress = settle(stage, progress, under_way.popleft())
        speed = (progress.examples_seen - fed_before) / (time.perf_counter() - started)
        loss = progress.loss_sum / progress.step if progress.step else None
        session.display.steps(progress.epoch, stage.epochs, progress.examples_seen, speed, loss)
        session.stop.ask(_save_is_due_here(session))
        if session.stop or save_is_due(session):
            progress = _settle_all(session, stage, progress, under_way)
            if progress.step < stage.updates_per_epoch:
                save_or_stop(session, state, progress, due=True)
    return state, _settle_all(session, stage, progress, under_way)


def _note_switch(session: Session, progress: Progress) -> None:
    pause = session.clock.resume()
    if pause is not None:
        text = f"stage {progress.stage} began {1000 * pause:.1f} ms after the last step of stage {progress.stage - 1}"
        session.note("switch", f"{text}, evaluation and checkpoint aside")


def _fed(session: Session, stage: Stage, progress: Progress) -> Iterator[Picked]:
    """What each call works on, on the devices; the time that this takes is what training waits for input."""
    left = range(progress.updates, progress.updates + stage.updates_per_epoch - progress.step)
    steps = steps_in_call(stage.updates_per_epoch, session.experiment.steps_per_call)
    feeding = session.train.calls(session.order, calls(left, steps))
    while True:
        with session.clock.measure("input_wait"):
            picked = next(feeding, None)
        if picked is None:
            return
        yield picked


def settle(stage: Stage, progress: Progress, losses: jax.Array) -> Progress:
    """Waits for one call's losses [k] and counts its steps.

    Raises:
      NonFiniteLossError: with the step, the rate and the batch.
    """
    values = np.asarray(losses, np.float64).tolist()
    loss_sum = progress.loss_sum
    for offset, value in enumerate(values, start=1):
        if not math.isfinite(value):
            raise failures.not_finite(f"the loss is {value}", stage, progress, progress.updates + offset)
        # Added one by one, so that the sum does not depend on where a run was stopped.
        loss_sum += value
    return dataclasses.replace(
        progress,
        step=progress.step + len(values),
        updates=progress.updates + len(values),
        examples_seen=progress.examples_seen + len(values) * stage.batch_size,
        loss_sum=loss_sum,
    )


def _settle_all(session: Session, stage: Stage, progress: Progress, under_way: deque[jax.Array]) -> Progress:
    with session.clock.measure("train"):
        while under_way:
            progress = settle(stage, progress, under_way.popleft())
    return progress


def _record(session: Session, stage: Stage, rate: float, progress: Progress, scores: Scores | None) -> None:
    record = EpochRecord(
        stage=progress.stage,
        stage_name=stage.name,
        epoch=progress.epoch,
        step=progress.updates,
        examples_seen=progress.examples_seen,
        updates=progress.updates,
        learning_rate=rate,
        batch_size=stage.batch_size,
        noise_scale=noise_scale(stage, rate),
        train_loss=progress.loss_sum / progress.step,
        test_loss=scores.loss if scores else None,
        top1=scores.top1 if scores else None,
        top5=scores.top5 if scores else None,
        best_top1=progress.best_top1,
        seconds=session.clock.read(),
    )
    session.writer.append(record)
    session.display.epoch(record)


def save_is_due(session: Session) -> bool:
    """Whether a checkpoint is due on all processes."""
    return session.stop.due(_save_is_due_here(session))


def _save_is_due_here(session: Session) -> bool:
    return saving.is_due(session)


def save_or_stop(session: Session, state: TrainState, progress: Progress, *, due: bool, later: bool = False) -> None:
    """Saves where that is due, and before the run stops for a signal.

    Raises:
      InterruptedRunError: after the state is on disk, if a signal has come.
      UnsavedError: if it has come and the state is not on disk.
    """
    session.stop.settle()
    if due or session.stop:
        with session.clock.measure("checkpoint"):
            placed = dataclasses.replace(progress, seconds=session.clock.read())
            saving.save(session, state, placed, later=later)
    if session.stop:
        saving.stop(session, progress)
