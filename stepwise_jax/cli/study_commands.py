"""The command sweep, and what it shares with compare: checks before many runs, and running them."""

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.cli.parsing.overrides import load_experiment
from stepwise_jax.errors import InputError, StepwiseError, require
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.runtime.signals import stop_on_signals

Execute = Callable[[Sequence[Any]], list[Any]]
"""Runs the jobs that are not finished, and returns the failures."""


def launch_command() -> tuple[str, ...]:
    """The command that starts this program from any folder, also in a clone that is not installed."""
    return sys.executable, str(Path(__file__).parents[1] / "__main__.py")


def sweep(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Searches data size, batch size and learning rate on held-out training images; tests the best point once."""
    from stepwise_jax.cli.study_tables import print_results
    from stepwise_jax.functional.checks import check_experiment
    from stepwise_jax.report.report import write_report
    from stepwise_jax.studies import search, sweep
    from stepwise_jax.studies.executors.mirror import recorded_study

    _check_sweep(options)
    execute = choose_executor(options)
    experiment = load_experiment(options.config, fields, options.command)
    sizes = check_weights({"sweep": experiment})["sweep"]
    check_experiment(experiment, (), sizes.num_classes)
    seeds = tuple(range(experiment.seed, experiment.seed + options.seeds))
    command = (*launch_command(), "train", options.config, *fields, *log_words(options))
    settings = sweep.Sweep(options.workdir, experiment, seeds, command, _make_planner(options, fields))
    points = sweep.parse_grid(experiment, options.grid) if options.grid else ()
    # Raises an error now if a point cannot be trained.
    for point in points:
        settings.jobs(point)
    examples = sweep.examples_without_validation(experiment, sizes.train)
    space = None if points else search.make_space(experiment, examples, options.samples)
    document = sweep.sweep_to_dict(settings, options.config, points, space)
    with recorded_study(options.mirror, sweep.SWEEP_FILE) as recorded:
        if recorded:
            sweep.check_sweep_folder(recorded, document)
    mirror = open_mirror(options)
    sweep.open_sweep_folder(options.workdir, document)
    prepare_data({"sweep": experiment})
    results = _run_sweep(options, settings, points, space, mirror.mirrored(execute))
    print_results(results)
    print(f"report: {write_report([options.workdir], options.workdir / 'report')}")
    mirror.copy()
    if results["failures"]:
        raise StepwiseError(f"{len(results['failures'])} runs failed: {results['failures'][0]['message']}")


def _check_sweep(options: argparse.Namespace) -> None:
    from stepwise_jax.studies import search

    require(1 <= options.seeds <= 10_000, "--seeds", options.seeds, "from 1 to 10000")
    require(options.trials >= 0, "--trials", options.trials, "at least 1")
    if bool(options.grid) == bool(options.trials):
        raise InputError("sweep: give either --grid or --trials, such as --grid plan.batch_size=12,24")
    require(not options.grid or options.samples is None, "--samples", options.samples, "omitted with --grid")
    if options.trials:
        search.load_optuna()
        on_cluster = options.executor not in (None, "local")
        require(
            not on_cluster or options.processes > 0,
            "--processes",
            options.processes,
            f"at least 1 with --trials, the number of points that --executor {options.executor} trains at a time",
        )


def _run_sweep(
    options: argparse.Namespace, settings: Any, points: Any, space: Any | None, execute: Execute
) -> dict[str, Any]:
    from stepwise_jax.studies import search, sweep_run
    from stepwise_jax.studies.executors.slots import default_processes

    if space is None:
        return sweep_run.run_grid(settings, points, execute)
    study = search.Search(space, options.workdir, settings.experiment.seed)
    parallel_runs = options.processes or default_processes()
    return sweep_run.run_search(settings, study, options.trials, parallel_runs, execute)


def _make_planner(options: argparse.Namespace, fields: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    """A function from further `--FIELD VALUE` arguments to the experiment with these fields, and its plan."""
    from stepwise_jax.data import datasets
    from stepwise_jax.functional.checks import check_experiment
    from stepwise_jax.plans.planning import make_plan

    # The files of a folder are counted once, not for every point.
    sizes = functools.cache(datasets.sizes)

    @functools.cache
    def plan(arguments: tuple[str, ...]) -> Any:
        experiment = load_experiment(options.config, [*fields, *arguments], options.command)
        found = sizes(experiment.data)
        stages = make_plan(experiment.plan, found.train, experiment.optimizer)
        check_experiment(experiment, stages, found.num_classes)
        return experiment, stages

    return lambda arguments: plan(tuple(arguments))


def log_words(options: argparse.Namespace) -> tuple[str, ...]:
    """The arguments that make the study's runs log elsewhere, as one group; checks that they can."""
    from stepwise_jax.workdir.loggers import make_loggers

    make_loggers(options.log, options.workdir / "run", options.workdir)
    return ("--log", ",".join(options.log), "--log-group", str(options.workdir)) if options.log else ()


def choose_executor(options: argparse.Namespace) -> Execute:
    """A function that runs jobs on the executor that the options name.

    Raises:
      InputError: as `make_executor`.
    """
    from stepwise_jax.studies.executors.options import OPTIONS, ExecutorOptions, make_executor

    given = {name: getattr(options, f"executor_{name}") for name in OPTIONS}
    chosen = ExecutorOptions(options.executor or "local", options.processes, **given)
    executor = make_executor(chosen, options.workdir)
    needs = chosen.needs()
    return lambda jobs: run_unfinished([dataclasses.replace(job, needs=needs) for job in jobs], executor)


def open_mirror(options: argparse.Namespace) -> Any:
    """The mirror that the options name, if any, once what it has and the folder lacks has been downloaded.

    Raises:
      InputError: if it cannot be read or written, or is damaged.
    """
    from stepwise_jax.cli.display import make_display
    from stepwise_jax.studies.executors.mirror import StudyMirror

    mirror = StudyMirror(options.workdir, options.mirror)
    with make_display(sys.stderr) as display:
        mirror.restore(display.show_progress)
    return mirror


def check_weights(experiments: Mapping[str, ExperimentConfig]) -> dict[str, Any]:
    """Checks initial weights before any run starts; returns the sizes of each experiment's data set."""
    from stepwise_jax.data import datasets

    for weights in {each.model.initial_weights for each in experiments.values()} - {None}:
        exists = Path(os.path.expanduser(str(weights))).is_file()
        require(exists, "model.initial_weights", weights, "a weight file, and no such file exists")
    return {name: datasets.sizes(each.data) for name, each in experiments.items()}


def prepare_data(experiments: Mapping[str, ExperimentConfig]) -> None:
    """Prepares the data of all experiments, each data set once."""
    from stepwise_jax.cli.display import make_display
    from stepwise_jax.data import datasets

    with make_display(sys.stderr) as display:
        for data in dict.fromkeys(each.data for each in experiments.values()):
            datasets.prepare(data, display.show_progress)


def run_unfinished(jobs: Sequence[Any], executor: Any) -> list[Any]:
    """Runs the jobs that are not finished, and returns the failures."""
    from stepwise_jax.cli.study_display import make_study_display
    from stepwise_jax.studies.executors.job_queue import run_jobs

    with stop_on_signals() as stop:
        display = make_study_display(jobs)
        try:
            return run_jobs(jobs, executor, display, stop)
        finally:
            display.finish()
