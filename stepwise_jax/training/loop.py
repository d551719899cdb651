"""The training loop: executes a tuple of stages, from the start or from where a checkpoint left off."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax import linen as nn

from stepwise_jax.data.batches import Inputs
from stepwise_jax.data.sampler import epoch_order, steps_in_call
from stepwise_jax.errors import InputError, NonFiniteLossError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.batch_statistics import reestimate
from stepwise_jax.functional.state import TrainState, cross_boundary, digest
from stepwise_jax.plans.stage import Stage, stage_document, stage_from_document
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.devices import describe_device
from stepwise_jax.runtime.signals import Stopped, until_stopped
from stepwise_jax.training import failures, saving
from stepwise_jax.training.epoch import run_epoch_traced, save_is_due, save_or_stop
from stepwise_jax.training.progress import Observer, Position, end, position_from, updates_before
from stepwise_jax.training.session import Session, open_session, resolve
from stepwise_jax.training.summary import finish
from stepwise_jax.training.timing import Profile
from stepwise_jax.workdir import lock, record_file
from stepwise_jax.workdir.files import RECORDS, SUMMARY
from stepwise_jax.workdir.folder import continue_or_start, recorded
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.records import StageRecord, StartRecord


def run(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    network: nn.Module,
    folder: Path,
    *,
    observers: Sequence[Observer] = (),
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
      observers: called with each record of the run: displays, loggers.
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
    with (
        multihost.exit_on_local_failure(lambda: end(observers)),
        multihost.entered_by_first(lambda: lock.locked(folder)),
    ):
        weights_sha256 = None if variables is None else digest(variables)
        experiment, stages = _open_workdir(folder, experiment, stages, config_path, weights_sha256)
        with open_session(experiment, stages, network, variables, folder, observers, profile) as session:
            state, position = _begin(session, folder)
            finished = position.updates == len(session.order)
            if finished and (summary := multihost.broadcast_from_first(lambda: _summary(folder))):
                session.log.event("done", "this run is finished: nothing to do")
                return summary
            session = failures.with_lowered_rates(session, stages, position.setbacks)
            try:
                while position.stage <= len(stages):
                    session, state, position = _try_stage(session, stages, state, position)
                saving.save_final(session, state, position)
                return finish(session, state, folder)
            except Stopped:
                saving.stop(session, position)


def _try_stage(
    session: Session, planned: tuple[Stage, ...], state: TrainState, position: Position
) -> tuple[Session, TrainState, Position]:
    """Runs a stage to its end; where its loss is not finite, goes back to its start or gives up, by `on_nan`."""
    session.checkpoints.hold(updates_before(planned, position.stage))
    try:
        with failures.explain_out_of_memory(session.stages[position.stage - 1], position.stage):
            return session, *run_stage(session, state, position)
    except NonFiniteLossError as error:
        return failures.restart_stage(session, planned, position, error)


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
        chosen = continue_or_start(folder, resolved, stages, config_path, weights_sha256, describe_device())
        return {"steps_per_call": resolved.steps_per_call, "stages": [stage_document(stage) for stage in chosen]}

    opened = multihost.broadcast_from_first(open_first)
    experiment = dataclasses.replace(experiment, steps_per_call=opened["steps_per_call"])
    return experiment, tuple(stage_from_document(stage) for stage in opened["stages"])


def _summary(folder: Path) -> dict[str, Any] | None:
    path = folder / SUMMARY
    return read_json(path) if path.exists() else None


def _begin(session: Session, folder: Path) -> tuple[TrainState, Position]:
    """The state and place of the newest good checkpoint, or of the start."""
    initial = session.initial()
    restored = session.checkpoints.restore(initial, lambda message: session.log.event("fallback", message))
    state, position = (initial, Position()) if restored is None else (restored[0], position_from(restored[1]))
    updates = sum(stage.updates for stage in session.stages)
    total = sum(stage.updates * stage.batch_size for stage in session.stages)
    title = f"{session.experiment.model.name} on {session.experiment.data.name}"
    multihost.check_same("the updates that checkpoints/ has done", position.updates)
    if restored is not None:
        multihost.broadcast_from_first(lambda: _check_records(session, position, folder))
    session.clock.reset(position.seconds)
    session.log.show(StartRecord(title, [stage_document(stage) for stage in session.stages], total))
    if restored is None:
        session.log.event("start", f"starting: {len(session.stages)} stages, {updates} updates{_lost(folder)}")
    else:
        session.log.event("resume", f"going on after {position.updates} of {updates} updates")
    return state, position


def _lost(folder: Path) -> str:
    """Epochs are on record of which no checkpoint is left: somebody removed it, or a process was killed early."""
    if not multihost.is_first_process() or not (folder / RECORDS).exists():
        return ""
    epochs = len(record_file.read_records(folder).epochs)
    return f"; no checkpoint is left, so epochs on record ({epochs}) are trained anew" if epochs else ""


def _check_records(session: Session, position: Position, folder: Path) -> None:
    """Refuses to go on where epochs that the checkpoint counts on are not on record: no summary could be made."""
    planned = [
        (number, epoch) for number, stage in enumerate(session.stages, 1) for epoch in range(1, stage.epochs + 1)
    ]
    done = [place for place in planned if place < (position.stage, position.epoch)]
    missing = sorted(set(done) - {(row["stage"], row["epoch"]) for row in record_file.read_records(folder).epochs})
    if missing:
        stage, epoch = missing[0]
        raise InputError(
            f"{folder / RECORDS} lacks epoch {epoch} of stage {stage}, which the checkpoint counts on: "
            "put it back, or use another workdir"
        )


def run_stage(session: Session, state: TrainState, position: Position) -> tuple[TrainState, Position]:
    """Trains from `position` to the end of its stage, and saves what the next one starts from."""
    stage = session.stages[position.stage - 1]
    _announce(session, stage, position)
    if position.stage > 1 and (position.epoch, position.step) == (1, 0):
        with session.clock.measure("train"):
            state = enter_stage(session, state, stage, position.stage)
    compile_stage(session, stage, state)
    compile_ahead(session, state, position.stage)
    while position.epoch < stage.epochs:
        state, position = run_epoch_traced(session, stage, state, position)
        save_or_stop(session, state, position, due=save_is_due(session))
    state, position = run_epoch_traced(session, stage, state, position)
    position = dataclasses.replace(position, stage=position.stage + 1, epoch=1)
    save_or_stop(session, state, position, due=True, later=True)
    return state, position


def _announce(session: Session, stage: Stage, position: Position) -> None:
    subset, document = session.subsets[position.stage - 1], stage_document(stage)
    names = {item.name for item in dataclasses.fields(StageRecord)} & document.keys()
    planned = {name: document[name] for name in names}
    session.log.record(StageRecord(stage=position.stage, split=subset.split, sha256=subset.sha256, **planned))


def enter_stage(session: Session, state: TrainState, stage: Stage, number: int) -> TrainState:
    """What crosses the boundary into stage `number`, by `plan.carry` and `plan.batch_statistics`."""
    plan = session.experiment.plan
    state = cross_boundary(state, session.initial, session.optimizer, plan)
    state = session.place(state)
    if plan.batch_statistics == "reestimated":
        rows = epoch_order(session.experiment.seed, number, 0, session.subsets[number - 1].rows, stage.batch_size)

        def statistics(batch_stats: Any, batch: Inputs) -> Any:
            return session.programs.statistics(batch_stats, state, session.train.examples, batch)

        batches = until_stopped(session.stop, session.train.batches(rows))
        return state._replace(batch_stats=reestimate(statistics, state.batch_stats, batches))
    return state


def call_lengths(stage: Stage, steps_per_call: int) -> tuple[int, ...]:
    """Steps in the calls of an epoch: in whole ones, and in the shorter one that ends it where there is one."""
    steps = steps_in_call(stage.updates_per_epoch, steps_per_call)
    return tuple(length for length in (steps, stage.updates_per_epoch % steps) if length)


def compile_stage(session: Session, stage: Stage, state: TrainState) -> None:
    """Compiles the stage's calls, or waits for those that are under way."""
    for length in call_lengths(stage, session.experiment.steps_per_call):
        inputs = session.train.abstract(length, stage.batch_size)
        session.programs.prepare_train(state, session.train.examples, inputs)


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
