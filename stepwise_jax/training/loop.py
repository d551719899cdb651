"""The training loop: runs a tuple of stages, from the start or from a checkpoint."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax import linen as nn

from stepwise_jax.data.batches import Inputs
from stepwise_jax.data.sampler import epoch_order, steps_in_call
from stepwise_jax.errors import InputError, NonFiniteLossError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.batch_statistics import reestimate_batch_stats
from stepwise_jax.functional.state import TrainState, cross_stage_boundary, digest
from stepwise_jax.plans.stage import Stage, stage_from_dict, stage_to_dict
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.devices import describe_device
from stepwise_jax.runtime.signals import Stopped, until_stopped
from stepwise_jax.training import failures, saving
from stepwise_jax.training.epoch import run_epoch_with_profile, save_is_due, save_or_stop
from stepwise_jax.training.progress import Observer, Position, notify_end, position_from_document, updates_before
from stepwise_jax.training.session import Session, open_session, resolve_steps_per_call
from stepwise_jax.training.summary import write_results
from stepwise_jax.training.timing import ProfiledEpoch
from stepwise_jax.workdir import lock, record_file
from stepwise_jax.workdir.files import RECORDS, SUMMARY
from stepwise_jax.workdir.folder import read_experiment, resume_or_start
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
    profile: ProfiledEpoch | None = None,
) -> dict[str, Any]:
    """Train `stages` in `folder`, or resume where training stopped, and return the contents of `summary.json`.

    Args:
      experiment: what to train on, and how.
      stages: the plan, from `planning.make_plan`.
      network: called as `network.apply(variables, images, train=...)`, with the data set's number of classes.
      folder: the workdir; created if it does not exist.
      observers: called with each record of the run: displays, loggers.
      variables: `{"params", "batch_stats"}` to start from; random ones from the seed by default.
      config_path: the configuration file, for the record.
      profile: the epoch to trace, if any.

    Raises:
      InputError: before any work, if the workdir, the data or the plan cannot be used.
      NonFiniteLossError: if the loss is infinite or NaN, unless `on_nan` is "back".
      DeviceMemoryError: if a device runs out of memory.
      InterruptedRunError: after a signal; the state is saved.
      SaveError: if the final state, the predictions or the summary cannot be written.
    """
    with (
        multihost.exit_on_local_failure(lambda: notify_end(observers)),
        multihost.enter_on_first_process(lambda: lock.exclusive_lock(folder)),
    ):
        experiment, stages = _open_workdir(folder, experiment, stages, config_path, variables)
        with open_session(experiment, stages, network, variables, folder, observers, profile) as session:
            state, position = _start_or_resume(session, folder)
            if summary := _finished_summary(session, position):
                return summary
            return _run_stages(session, stages, state, position)


def _run_stages(session: Session, planned: tuple[Stage, ...], state: TrainState, position: Position) -> dict[str, Any]:
    """Run every stage from `position` on and write the results; return the contents of `summary.json`."""
    session = failures.lower_rates(session, planned, position.setbacks)
    try:
        while position.stage <= len(planned):
            session, state, position = _try_stage(session, planned, state, position)
        saving.save_final(session, state, position)
        return write_results(session, state, session.folder)
    except Stopped:
        saving.stop_for_signal(session, position)


def _try_stage(
    session: Session, planned: tuple[Stage, ...], state: TrainState, position: Position
) -> tuple[Session, TrainState, Position]:
    """Run a stage to its end. If its loss is not finite, restart the stage or raise, by `on_nan`."""
    session.checkpoints.pin(updates_before(planned, position.stage))
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
    variables: Any | None,
) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
    """Return the experiment and the stages as the workdir records them; a new workdir records the given ones."""
    weights_sha256 = None if variables is None else digest(variables)

    def open_first() -> dict[str, Any]:
        resolved = resolve_steps_per_call(experiment, read_experiment(folder))
        chosen = resume_or_start(folder, resolved, stages, config_path, weights_sha256, describe_device())
        return {"steps_per_call": resolved.steps_per_call, "stages": [stage_to_dict(stage) for stage in chosen]}

    opened = multihost.broadcast_from_first(open_first)
    experiment = dataclasses.replace(experiment, steps_per_call=opened["steps_per_call"])
    return experiment, tuple(stage_from_dict(stage) for stage in opened["stages"])


def _finished_summary(session: Session, position: Position) -> dict[str, Any] | None:
    """Return the contents of `summary.json` if the run is finished, else None."""
    if position.updates != len(session.sampler):
        return None
    path = session.folder / SUMMARY
    summary = multihost.broadcast_from_first(lambda: read_json(path) if path.exists() else None)
    if summary:
        session.log.event("done", "this run is finished: nothing to do")
    return summary


def _start_or_resume(session: Session, folder: Path) -> tuple[TrainState, Position]:
    """Return the state and position of the newest good checkpoint, or of the start."""
    initial = session.make_initial_state()
    restored = session.checkpoints.restore(initial, lambda message: session.log.event("fallback", message))
    state, position = initial, Position()
    if restored is not None:
        state, position = restored[0], position_from_document(restored[1])
    updates = sum(stage.updates for stage in session.stages)
    total = sum(stage.updates * stage.batch_size for stage in session.stages)
    title = f"{session.experiment.model.name} on {session.experiment.data.name}"
    multihost.check_same_on_all_processes("the updates that checkpoints/ has done", position.updates)
    if restored is not None:
        multihost.broadcast_from_first(lambda: _check_records(session, position, folder))
    session.timer.reset(position.seconds)
    session.log.show(StartRecord(title, [stage_to_dict(stage) for stage in session.stages], total))
    if restored is None:
        session.log.event("start", f"starting: {len(session.stages)} stages, {updates} updates{_lost_epochs(folder)}")
    else:
        session.log.event("resume", f"resuming after {position.updates} of {updates} updates")
    return state, position


def _lost_epochs(folder: Path) -> str:
    """Say how many recorded epochs have no checkpoint: somebody removed it, or the process was killed early."""
    if not multihost.is_first_process() or not (folder / RECORDS).exists():
        return ""
    epochs = len(record_file.read_records(folder).epochs)
    return f"; no checkpoint is left, so the recorded epochs ({epochs}) are trained again" if epochs else ""


def _check_records(session: Session, position: Position, folder: Path) -> None:
    """Refuse to resume if an epoch before the checkpoint is missing in the records: the summary needs it."""
    planned = [
        (number, epoch) for number, stage in enumerate(session.stages, 1) for epoch in range(1, stage.epochs + 1)
    ]
    done = [epoch for epoch in planned if epoch < (position.stage, position.epoch)]
    missing = sorted(set(done) - {(row["stage"], row["epoch"]) for row in record_file.read_records(folder).epochs})
    if missing:
        stage, epoch = missing[0]
        raise InputError(
            f"{folder / RECORDS} lacks epoch {epoch} of stage {stage}, which the checkpoint includes: "
            "restore the file, or use another workdir"
        )


def run_stage(session: Session, state: TrainState, position: Position) -> tuple[TrainState, Position]:
    """Train from `position` to the end of its stage, and save the state from which the next one starts."""
    stage = session.stages[position.stage - 1]
    _record_stage(session, stage, position)
    if position.stage > 1 and (position.epoch, position.step) == (1, 0):
        with session.timer.measure("train"):
            state = enter_stage(session, state, stage, position.stage)
    compile_stage(session, stage, state)
    compile_ahead(session, state, position.stage)
    while position.epoch < stage.epochs:
        state, position = run_epoch_with_profile(session, stage, state, position)
        save_or_stop(session, state, position, due=save_is_due(session))
    state, position = run_epoch_with_profile(session, stage, state, position)
    position = dataclasses.replace(position, stage=position.stage + 1, epoch=1)
    save_or_stop(session, state, position, due=True, later=True)
    return state, position


def _record_stage(session: Session, stage: Stage, position: Position) -> None:
    subset, document = session.subsets[position.stage - 1], stage_to_dict(stage)
    names = {item.name for item in dataclasses.fields(StageRecord)} & document.keys()
    planned = {name: document[name] for name in names}
    session.log.record(StageRecord(stage=position.stage, split=subset.split, sha256=subset.sha256, **planned))


def enter_stage(session: Session, state: TrainState, stage: Stage, number: int) -> TrainState:
    """Return the state at the start of stage `number`, by `plan.carry` and `plan.batch_statistics`."""
    plan = session.experiment.plan
    state = cross_stage_boundary(state, session.make_initial_state, session.optimizer, plan)
    state = session.place(state)
    if plan.batch_statistics == "reestimated":
        rows = epoch_order(session.experiment.seed, number, 0, session.subsets[number - 1].rows, stage.batch_size)

        def statistics(batch_stats: Any, batch: Inputs) -> Any:
            return session.compiled.update_batch_stats(batch_stats, state, session.train_loader.examples, batch)

        batches = until_stopped(session.stop, session.train_loader.batches(rows))
        return state._replace(batch_stats=reestimate_batch_stats(statistics, state.batch_stats, batches))
    return state


def call_lengths(stage: Stage, steps_per_call: int) -> tuple[int, ...]:
    """Return the distinct numbers of steps per call in an epoch: the usual one, and that of a shorter last call."""
    steps = steps_in_call(stage.updates_per_epoch, steps_per_call)
    return tuple(length for length in (steps, stage.updates_per_epoch % steps) if length)


def compile_stage(session: Session, stage: Stage, state: TrainState) -> None:
    """Compile the stage's training calls, or wait for those that are already compiling."""
    for length in call_lengths(stage, session.experiment.steps_per_call):
        inputs = session.train_loader.abstract_inputs(length, stage.batch_size)
        session.compiled.compile_train(state, session.train_loader.examples, inputs)


def compile_ahead(session: Session, state: TrainState, number: int) -> None:
    """Compile in the background what the run calls after the first step of stage `number`, in the order of use.

    Args:
      session: the run.
      state: the state at the start of stage `number`.
      number: from 1.
    """
    experiment, compiled = session.experiment, session.compiled
    train, test = session.train_loader, session.test_loader
    batch_size = compiled.evaluation_batch_size(experiment.evaluation.batch_size, len(session.test_ids))
    compiled.compile_evaluate_ahead(state, test.examples, test.abstract_inputs(batch_size))
    for stage in session.stages[number:]:
        if experiment.plan.batch_statistics == "reestimated":
            compiled.compile_batch_stats_ahead(state, train.examples, train.abstract_inputs(stage.batch_size))
        for length in call_lengths(stage, experiment.steps_per_call):
            compiled.compile_train_ahead(state, train.examples, train.abstract_inputs(length, stage.batch_size))
    compiled.compile_predict_ahead(state, test.examples, test.abstract_inputs(batch_size))
