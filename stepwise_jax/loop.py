"""The training loop: executes a tuple of stages, from the start or from where a checkpoint left off."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from stepwise_jax import divergence, memory, outcome, saving
from stepwise_jax.ahead import compile_ahead, compile_stage
from stepwise_jax.data.batches import Picked
from stepwise_jax.data.sampler import calls, epoch_order, steps_in_call
from stepwise_jax.display import Display
from stepwise_jax.errors import InputError, InterruptedRunError, NonFiniteLossError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.batch_statistics import reestimate
from stepwise_jax.functional.metrics import Scores
from stepwise_jax.functional.optimizers import set_hyperparameters
from stepwise_jax.functional.state import TrainState, cross_boundary, digest
from stepwise_jax.outcome import score
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale, stage_document, stage_from_document
from stepwise_jax.profile import FOLDER, Profile, traced
from stepwise_jax.progress import Progress, progress_from, updates_before
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.signals import Stopped, heed
from stepwise_jax.session import Session, open_session, resolve
from stepwise_jax.workdir import lock, records
from stepwise_jax.workdir.folder import SUMMARY, continue_or_start, recorded
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.records import EpochRecord, StageRecord

# Calls that may be under way on the device before the host waits for the oldest: enough that the device never waits,
# few enough that a signal or a loss that is not finite is noticed at once.
CALLS_IN_FLIGHT = 2


def run(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    network: nn.Module,
    folder: Path,
    display: Display,
    *,
    variables: Any | None = None,
    config_path: str = "",
    profile: Profile | None = None,
) -> dict[str, Any]:
    """Trains `stages` in `folder`, or goes on where it stopped, and returns the contents of `summary.json`.

    Args:
      experiment: what to train on, and how.
      stages: the plan, from `stages.make_plan`.
      network: called as `network.apply(variables, images, train=...)`, with the data set's number of classes.
      folder: the workdir; made where it does not exist.
      display: where progress is shown.
      variables: `{"params", "batch_stats"}` to start from; random ones from the seed by default.
      config_path: the configuration file, for the record.
      profile: the epoch to trace, if any.

    Raises:
      InputError: before any work, for a workdir, data or plan that cannot be used.
      NonFiniteLossError: when the loss is infinite or NaN, unless `on_nan` is "back".
      DeviceMemoryError: when a device has no memory left.
      InterruptedRunError: when a signal came; the state is saved.
      UnsavedError: when the final state, or what belongs to it, cannot be written.
    """
    with multihost.ending(display.finish), multihost.held_by_first(lambda: lock.locked(folder)):
        weights_sha256 = None if variables is None else digest(variables)
        experiment, stages = _open_workdir(folder, experiment, stages, config_path, weights_sha256)
        with open_session(experiment, stages, network, variables, folder, display, profile) as session:
            state, progress = _begin(session, folder)
            finished = progress.updates == len(session.order)
            if finished and (summary := multihost.from_first(lambda: _summary(folder))):
                session.note("done", "this run is finished: nothing to do")
                return summary
            session = divergence.with_setbacks(session, stages, progress.setbacks)
            try:
                while progress.stage <= len(stages):
                    session, state, progress = _try_stage(session, stages, state, progress)
                saving.insist(session, state, progress)
                return outcome.finish(session, state, folder)
            except Stopped:
                saving.stop(session, progress)


def _try_stage(
    session: Session, planned: tuple[Stage, ...], state: TrainState, progress: Progress
) -> tuple[Session, TrainState, Progress]:
    """Runs a stage to its end; where its loss is not finite, goes back to its start or gives up, by `on_nan`."""
    session.checkpoints.hold(updates_before(planned, progress.stage))
    try:
        with memory.shortage_told(session.stages[progress.stage - 1], progress.stage):
            return session, *run_stage(session, state, progress)
    except NonFiniteLossError as error:
        return divergence.go_back(session, planned, progress, error)


def _open_workdir(
    folder: Path,
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    config_path: str,
    weights_sha256: str | None,
) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
    """The experiment and the stages as the workdir has them, or as it records them now."""

    def open_first() -> dict[str, Any]:
        resolved = resolve(experiment, recorded(folder))
        chosen = continue_or_start(folder, resolved, stages, config_path, weights_sha256)
        return {"steps_per_call": resolved.steps_per_call, "stages": [stage_document(stage) for stage in chosen]}

    opened = multihost.from_first(open_first)
    experiment = dataclasses.replace(experiment, steps_per_call=opened["steps_per_call"])
    return experiment, tuple(stage_from_document(stage) for stage in opened["stages"])


def _summary(folder: Path) -> dict[str, Any] | None:
    path = folder / SUMMARY
    return read_json(path) if path.exists() else None


def _begin(session: Session, folder: Path) -> tuple[TrainState, Progress]:
    """The state and place of the newest good checkpoint, or of the start."""
    initial = session.initial()
    restored = session.checkpoints.restore(initial, lambda message: session.note("fallback", message))
    state, progress = (initial, Progress()) if restored is None else (restored[0], progress_from(restored[1]))
    updates = sum(stage.updates for stage in session.stages)
    total = sum(stage.updates * stage.batch_size for stage in session.stages)
    title = f"{session.experiment.model.name} on {session.experiment.data.name}"
    multihost.check_same("the updates that checkpoints/ has done", progress.updates)
    if restored is not None:
        multihost.from_first(lambda: _check_records(session, progress, folder))
    session.clock.reset(progress.seconds)
    session.display.start(title, [stage_document(stage) for stage in session.stages], total)
    if restored is None:
        session.note("start", f"starting: {len(session.stages)} stages, {updates} updates{_lost(folder)}")
    else:
        session.note("resume", f"going on after {progress.updates} of {updates} updates")
    return state, progress


def _lost(folder: Path) -> str:
    """Epochs are on record of which no checkpoint is left: somebody removed it, or a process was killed early."""
    if not multihost.is_first() or not (folder / records.FILE).exists():
        return ""
    epochs = len(records.read(folder).epochs)
    return f"; no checkpoint is left, so epochs on record ({epochs}) are trained anew" if epochs else ""


def _check_records(session: Session, progress: Progress, folder: Path) -> None:
    """Refuses to go on where epochs that the checkpoint counts on are not on record: no summary could be made."""
    planned = [
        (number, epoch) for number, stage in enumerate(session.stages, 1) for epoch in range(1, stage.epochs + 1)
    ]
    done = [place for place in planned if place < (progress.stage, progress.epoch)]
    missing = sorted(set(done) - {(row["stage"], row["epoch"]) for row in records.read(folder).epochs})
    if missing:
        stage, epoch = missing[0]
        raise InputError(
            f"{folder / records.FILE} lacks epoch {epoch} of stage {stage}, which the checkpoint counts on: "
            "put it back, or use another workdir"
        )


def run_stage(session: Session, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """Trains from `progress` to the end of its stage, and saves what the next one starts from."""
    stage = session.stages[progress.stage - 1]
    _announce(session, stage, progress)
    if progress.stage > 1 and (progress.epoch, progress.step) == (1, 0):
        with session.clock.measure("train"):
            state = enter_stage(session, state, stage, progress.stage)
    compile_stage(session, stage, state)
    compile_ahead(session, state, progress.stage)
    while progress.epoch < stage.epochs:
        state, progress = _run_epoch_traced(session, stage, state, progress)
        _save_or_stop(session, state, progress, due=_save_is_due(session))
    state, progress = _run_epoch_traced(session, stage, state, progress)
    progress = dataclasses.replace(progress, stage=progress.stage + 1, epoch=1)
    _save_or_stop(session, state, progress, due=True, later=True)
    return state, progress


def _announce(session: Session, stage: Stage, progress: Progress) -> None:
    subset, document = session.subsets[progress.stage - 1], stage_document(stage)
    names = {item.name for item in dataclasses.fields(StageRecord)} & document.keys()
    planned = {name: document[name] for name in names}
    session.writer.append(StageRecord(stage=progress.stage, split=subset.split, sha256=subset.sha256, **planned))
    text = f"{stage.examples} examples, batch {stage.batch_size}, learning rate {stage.learning_rate:g}"
    session.display.stage(progress.stage, stage.name, text)


def enter_stage(session: Session, state: TrainState, stage: Stage, number: int) -> TrainState:
    """What crosses the boundary into stage `number`, by `plan.carry` and `plan.batch_statistics`."""
    plan = session.experiment.plan
    state = cross_boundary(state, session.initial, session.optimizer, plan)
    state = session.place(state)
    if plan.batch_statistics == "reestimated":
        rows = epoch_order(session.experiment.seed, number, 0, session.subsets[number - 1].rows, stage.batch_size)

        def statistics(batch_stats: Any, batch: Picked) -> Any:
            return session.programs.statistics(batch_stats, state, session.train.examples, batch)

        batches = heed(session.stop, session.train.batches(rows))
        return state._replace(batch_stats=reestimate(statistics, state.batch_stats, batches))
    return state


def _run_epoch_traced(
    session: Session, stage: Stage, state: TrainState, progress: Progress
) -> tuple[TrainState, Progress]:
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
        _save_or_stop(session, state, progress, due=True)
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
        if session.stop or _save_is_due(session):
            progress = _settle_all(session, stage, progress, under_way)
            if progress.step < stage.updates_per_epoch:
                _save_or_stop(session, state, progress, due=True)
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
            raise divergence.not_finite(f"the loss is {value}", stage, progress, progress.updates + offset)
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


def _save_is_due(session: Session) -> bool:
    return session.stop.due(_save_is_due_here(session))


def _save_is_due_here(session: Session) -> bool:
    return saving.is_due(session)


def _save_or_stop(session: Session, state: TrainState, progress: Progress, *, due: bool, later: bool = False) -> None:
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


def evaluate(
    experiment: ExperimentConfig, stages: tuple[Stage, ...], network: nn.Module, folder: Path, display: Display
) -> dict[str, Any]:
    """Scores the newest good checkpoint of a run: `{"top1", "top5", "loss", "updates", "stage", "epoch"}`.

    Raises:
      InputError: if the run has no checkpoint yet, its data has changed, or a process is training in it.
    """
    with (
        lock.locked(folder),
        open_session(experiment, stages, network, None, folder, display) as session,
    ):
        restored = session.checkpoints.restore(session.initial(), lambda message: session.note("fallback", message))
        if restored is None:
            raise InputError(f"{folder} has no checkpoint yet: train it first")
        state, progress = restored[0], progress_from(restored[1])
        try:
            scores = score(session, state)
        except Stopped as error:
            raise InterruptedRunError(f"stopped by {session.stop.name} before all images were scored") from error
    finished = progress.stage > len(stages)
    place = (len(stages), stages[-1].epochs) if finished else (progress.stage, progress.epoch)
    return {**scores._asdict(), "updates": progress.updates, "stage": place[0], "epoch": place[1]}
