"""The training loop: executes a tuple of stages, from the start or from where a checkpoint left off."""

import dataclasses
from pathlib import Path
from typing import Any

from flax import linen as nn

from stepwise_jax.cli.display import Display
from stepwise_jax.data.batches import Picked
from stepwise_jax.data.sampler import epoch_order, steps_in_call
from stepwise_jax.errors import InputError, NonFiniteLossError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.batch_statistics import reestimate
from stepwise_jax.functional.state import TrainState, cross_boundary, digest
from stepwise_jax.plans.stage import Stage, stage_document, stage_from_document
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.signals import Stopped, heed
from stepwise_jax.training import failures, saving
from stepwise_jax.training.epoch import run_epoch_traced, save_is_due, save_or_stop
from stepwise_jax.training.position import Progress, progress_from, updates_before
from stepwise_jax.training.session import Session, open_session, resolve
from stepwise_jax.training.summary import finish
from stepwise_jax.training.timing import Profile
from stepwise_jax.workdir import lock, records
from stepwise_jax.workdir.folder import SUMMARY, continue_or_start, recorded
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.records import StageRecord


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
            session = failures.with_setbacks(session, stages, progress.setbacks)
            try:
                while progress.stage <= len(stages):
                    session, state, progress = _try_stage(session, stages, state, progress)
                saving.insist(session, state, progress)
                return finish(session, state, folder)
            except Stopped:
                saving.stop(session, progress)


def _try_stage(
    session: Session, planned: tuple[Stage, ...], state: TrainState, progress: Progress
) -> tuple[Session, TrainState, Progress]:
    """Runs a stage to its end; where its loss is not finite, goes back to its start or gives up, by `on_nan`."""
    session.checkpoints.hold(updates_before(planned, progress.stage))
    try:
        with failures.shortage_told(session.stages[progress.stage - 1], progress.stage):
            return session, *run_stage(session, state, progress)
    except NonFiniteLossError as error:
        return failures.go_back(session, planned, progress, error)


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
        state, progress = run_epoch_traced(session, stage, state, progress)
        save_or_stop(session, state, progress, due=save_is_due(session))
    state, progress = run_epoch_traced(session, stage, state, progress)
    progress = dataclasses.replace(progress, stage=progress.stage + 1, epoch=1)
    save_or_stop(session, state, progress, due=True, later=True)
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


def call_lengths(stage: Stage, steps_per_call: int) -> tuple[int, ...]:
    """Steps in the calls of an epoch: in whole ones, and in the shorter one that ends it where there is one."""
    steps = steps_in_call(stage.updates_per_epoch, steps_per_call)
    return tuple(length for length in (steps, stage.updates_per_epoch % steps) if length)


def compile_stage(session: Session, stage: Stage, state: TrainState) -> None:
    """Compiles the stage's calls, or waits for those that are under way."""
    for length in call_lengths(stage, session.experiment.steps_per_call):
        picked = session.train.abstract(length, stage.batch_size)
        session.programs.prepare_train(state, session.train.examples, picked)


def compile_ahead(session: Session, state: TrainState, number: int) -> None:
    """Compiles in the background what comes after the first step of stage `number`, in the order of its need.

    Args:
      session: the run.
      state: as stage `number` begins with it.
      number: from 1.
    """
    experiment, programs, train, test = session.experiment, session.programs, session.train, session.test
    wanted = programs.evaluation_batch(experiment.evaluation.batch_size, len(session.test_ids))
    programs.prepare_scores_ahead(state, test.examples, test.abstract(wanted))
    for stage in session.stages[number:]:
        if experiment.plan.batch_statistics == "reestimated":
            programs.prepare_statistics_ahead(state, train.examples, train.abstract(stage.batch_size))
        for length in call_lengths(stage, experiment.steps_per_call):
            programs.prepare_train_ahead(state, train.examples, train.abstract(length, stage.batch_size))
    programs.prepare_predictions_ahead(state, test.examples, test.abstract(wanted))
