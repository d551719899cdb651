"""The training loop: runs a tuple of stages, from the start or from a checkpoint, and yields its records."""

import dataclasses
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flax import linen as nn

from stepwise_jax.data import datasets
from stepwise_jax.data.batches import Inputs
from stepwise_jax.data.sampler import epoch_order, steps_in_call
from stepwise_jax.errors import NonFiniteLossError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.boundary import cross_stage_boundary, reestimate_batch_stats
from stepwise_jax.functional.checks import check_functions
from stepwise_jax.functional.state import TrainState
from stepwise_jax.plans.stage import Stage, stage_to_dict
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.signals import Stopped, until_stopped
from stepwise_jax.training import failures, saving
from stepwise_jax.training.epoch import run_epoch_with_profile, save_is_due, save_or_stop, yield_records
from stepwise_jax.training.measurements.noise import compile_noise_ahead, measure_noise
from stepwise_jax.training.measurements.timing import ProfiledEpoch
from stepwise_jax.training.programs.step_functions import step_options
from stepwise_jax.training.progress import Observer, Position, RunLog, notify_end, updates_before
from stepwise_jax.training.session import Session, open_session
from stepwise_jax.training.start import finished_summary, open_workdir, recorded_summary, start_or_resume
from stepwise_jax.training.summary import write_results
from stepwise_jax.workdir import lock
from stepwise_jax.workdir.records import Record, StageRecord, SummaryRecord

_R = TypeVar("_R")

Run = Generator[Record, None, _R]
"""Yields the records of a part of a run as they are made, and returns its result."""


def run(
    experiment: ExperimentConfig, stages: tuple[Stage, ...], network: nn.Module, folder: Path, **options: Any
) -> dict[str, Any]:
    """Check the functions, train as `iterate` does, and return the contents of `summary.json`."""

    def check() -> None:
        check_functions(experiment, stages, network, datasets.sizes(experiment.data).num_classes)

    multihost.on_all_processes(check)
    return finish(iterate(experiment, stages, network, folder, **options))


def finish(running: Run[_R]) -> _R:
    """Run to the end and return the result."""
    while True:
        try:
            next(running)
        except StopIteration as stop:
            return stop.value


def iterate(
    experiment: ExperimentConfig,
    stages: tuple[Stage, ...],
    network: nn.Module,
    folder: Path,
    *,
    observers: Sequence[Observer] = (),
    variables: Any | None = None,
    config_path: str = "",
    profile: ProfiledEpoch | None = None,
) -> Run[dict[str, Any]]:
    """Train `stages` in `folder`, or resume where training stopped; yields records, and returns the run's summary.

    Args:
      experiment: what to train on, and how; `check_functions` has found that its functions fit together.
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
        multihost.enter_on_first_process(lambda: lock.exclusive_lock(folder)) as held,
    ):
        experiment, stages = open_workdir(folder, experiment, stages, config_path, variables)
        summary = finished_summary(folder, stages)
        if summary is not None:
            return (yield from _show_finished(summary, folder, observers))
        with open_session(experiment, stages, network, variables, folder, observers, profile, held) as session:
            return (yield from _run_session(session, stages, folder))


def _show_finished(summary: dict[str, Any], folder: Path, observers: Sequence[Observer]) -> Run[dict[str, Any]]:
    """Show the results of a finished run, for which neither data nor checkpoints are opened."""
    with RunLog(folder if multihost.is_first_process() else None, observers) as log:
        log.event("done", "this run is finished: nothing to do")
        log.show(SummaryRecord(summary))
        yield from log.take()
    return summary


def _run_session(session: Session, planned: tuple[Stage, ...], folder: Path) -> Run[dict[str, Any]]:
    state, position = start_or_resume(session, folder)
    summary = recorded_summary(session, position)
    if summary is None:
        summary = yield from _run_stages(session, planned, state, position)
    else:
        write_results(session, state, folder, summary)
    session.log.show(SummaryRecord(summary))
    yield from session.log.take()
    return summary


def _run_stages(
    session: Session, planned: tuple[Stage, ...], state: TrainState, position: Position
) -> Run[dict[str, Any]]:
    """Run every stage from `position` on and write the results; return the contents of `summary.json`."""
    session = failures.lower_rates(session, planned, position.setbacks)
    try:
        while position.stage <= len(planned):
            session, state, position = yield from _try_stage(session, planned, state, position)
        saving.save_final(session, state, position)
        return write_results(session, state, session.folder)
    except Stopped:
        saving.stop_for_signal(session, position)


def _try_stage(
    session: Session, planned: tuple[Stage, ...], state: TrainState, position: Position
) -> Run[tuple[Session, TrainState, Position]]:
    """Run a stage to its end. If its loss is not finite, restart the stage or raise, by `on_nan`."""
    session.checkpoints.pin(updates_before(planned, position.stage))
    try:
        with failures.explain_out_of_memory(session.stages[position.stage - 1], position.stage):
            state, position = yield from run_stage(session, state, position)
            return session, state, position
    except NonFiniteLossError as error:
        return failures.restart_stage(session, planned, position, error)


def run_stage(session: Session, state: TrainState, position: Position) -> Run[tuple[TrainState, Position]]:
    """Train from `position` to the end of its stage, and save the state from which the next one starts."""
    stage = session.stages[position.stage - 1]
    _record_stage(session, stage, position)
    if position.stage > 1 and (position.epoch, position.step) == (1, 0):
        with session.timer.measure("train"):
            state = enter_stage(session, state, stage, position.stage)
        measure_noise(session, state, position.stage, "start")
    compile_stage(session, stage, state)
    compile_ahead(session, state, position.stage)
    while position.epoch < stage.epochs:
        state, position = yield from run_epoch_with_profile(session, stage, state, position)
        save_or_stop(session, state, position, due=save_is_due(session))
        yield from yield_records(session, state, position)
    state, position = yield from run_epoch_with_profile(session, stage, state, position)
    position = dataclasses.replace(position, stage=position.stage + 1, epoch=1)
    save_or_stop(session, state, position, due=True, later=True)
    yield from yield_records(session, state, position)
    return state, position


def _record_stage(session: Session, stage: Stage, position: Position) -> None:
    subset, document = session.subsets[position.stage - 1], stage_to_dict(stage)
    names = {item.name for item in dataclasses.fields(StageRecord)} & document.keys()
    planned = {name: document[name] for name in names}
    session.log.record(StageRecord(stage=position.stage, split=subset.split, sha256=subset.sha256, **planned))


def enter_stage(session: Session, state: TrainState, stage: Stage, number: int) -> TrainState:
    """Return the state at the start of stage `number`, by `plan.carry` and `plan.batch_statistics`."""
    plan = session.experiment.plan
    state = session.place(cross_stage_boundary(state, session.make_initial_state, plan))
    options = step_options(stage)
    if plan.batch_statistics == "reestimated":
        subset = session.subsets[number - 1].rows
        rows = epoch_order(session.experiment.stream_seed("order"), number, 0, subset, stage.batch_size, stage.examples)

        def statistics(batch_stats: Any, batch: Inputs) -> Any:
            examples = session.train_loader.examples
            return session.compiled.update_batch_stats(batch_stats, state, examples, batch, options)

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
        session.compiled.compile_train(state, session.train_loader.examples, inputs, step_options(stage))


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
    compile_noise_ahead(session, state, session.stages[number - 1])
    for stage in session.stages[number:]:
        size, options = stage.batch_size, step_options(stage)
        if experiment.plan.batch_statistics == "reestimated":
            compiled.compile_batch_stats_ahead(state, train.examples, train.abstract_inputs(size), options)
        compile_noise_ahead(session, state, stage)
        for length in call_lengths(stage, experiment.steps_per_call):
            compiled.compile_train_ahead(state, train.examples, train.abstract_inputs(length, size), options)
    compiled.compile_predict_ahead(state, test.examples, test.abstract_inputs(batch_size))
