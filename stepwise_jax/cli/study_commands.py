"""The commands that run many jobs: compare and sweep."""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.cli import networks
from stepwise_jax.cli.overrides import load_experiment, parse_fields
from stepwise_jax.errors import StepwiseError, require
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.config_files import load_config, load_rows
from stepwise_jax.formatting import program_name
from stepwise_jax.runtime.signals import stop_on_signals


def launcher() -> tuple[str, ...]:
    """The words that start this program again, from any folder, also in a clone that is not installed."""
    return sys.executable, str(Path(__file__).parents[1] / "__main__.py")


def compare(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Trains strategies x seeds, paired, or continues; ends with what the differences show, and a report."""
    from stepwise_jax.studies import comparison, comparison_folder

    _check_processes(options.processes)
    wanted, experiments = _comparison(options, fields)
    stages = comparison.plans(experiments, _checked_sizes(experiments))
    pairs = comparison.duplicates(experiments, stages)
    wanted = comparison.drop_duplicates(wanted, pairs, named=options.strategies not in ("", "rows"))
    comparison_folder.check_finished(wanted, options.workdir, experiments, stages)
    whole = comparison_folder.open_folder(options.workdir, wanted)
    _prepare(experiments)
    cells = comparison.make_jobs(wanted, options.workdir, stages, launcher(), fields)
    failures = _run(cells, options.processes)
    comparison_folder.keep_failures(options.workdir, failures)
    _show_comparison(whole, options.workdir)
    if failures:
        first = f"{failures[0].cell.name}: {failures[0].message}"
        raise StepwiseError(f"{len(failures)} of {len(cells)} runs failed: {first}")


def _comparison(options: argparse.Namespace, fields: Sequence[str]) -> tuple[Any, dict[str, ExperimentConfig]]:
    """The comparison that the command line asks for, and the experiment of each of its arms."""
    from stepwise_jax.studies import comparison

    require(options.seeds >= 1, "--seeds", options.seeds, "at least 1")
    given = load_config(options.config)
    experiment = parse_fields(given, fields, f"{program_name()} {options.command} {options.config}")
    names = [name for name in options.strategies.split(",") if name]
    strategies = comparison.choose(names, options.config, experiment, load_rows(options.config))
    comparison.reject_ignored_fields(given, experiment, strategies)
    seeds = tuple(range(experiment.seed, experiment.seed + options.seeds))
    experiments = {
        each.name: parse_fields(load_config(each.config), [*fields, *each.words()], f"strategy {each.name}")
        for each in strategies
    }
    return comparison.Comparison(options.config, experiment, strategies, seeds), experiments


def _show_comparison(compared: Any, folder: Path) -> None:
    from stepwise_jax.cli.study_tables import print_comparison
    from stepwise_jax.report.report import write_report
    from stepwise_jax.studies import comparison_folder

    runs = comparison_folder.finished_runs(compared, folder)
    print_comparison(compared, runs, comparison_folder.paired(compared, runs))
    if any(runs.values()):
        print(f"report: {write_report([folder], folder / 'report')}")


def sweep(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Searches data size, batch size and learning rate, scored on held-out training images; tests the best once."""
    from stepwise_jax.cli.study_tables import print_results
    from stepwise_jax.report.report import write_report
    from stepwise_jax.studies import search, sweep

    _check_sweep(options)
    experiment = load_experiment(options.config, fields, options.command)
    seeds = tuple(range(experiment.seed, experiment.seed + options.seeds))
    command = (*launcher(), "train", options.config, *fields)
    setting = sweep.Sweep(options.workdir, experiment, seeds, command, _planner(options, fields))
    points = sweep.parse_grid(experiment, options.grid) if options.grid else ()
    for point in points:
        setting.cells(point)
    examples = sweep.left_for_training(experiment, _checked_sizes({"sweep": experiment})["sweep"])
    space = None if points else search.make_space(experiment, examples, options.samples)
    sweep.open_folder(options.workdir, sweep.describe(setting, options.config, points, space))
    _prepare({"sweep": experiment})
    results = _run_sweep(options, setting, points, space)
    print_results(results)
    print(f"report: {write_report([options.workdir], options.workdir / 'report')}")
    if results["failures"]:
        raise StepwiseError(f"{len(results['failures'])} runs failed: {results['failures'][0]['message']}")


def _check_sweep(options: argparse.Namespace) -> None:
    from stepwise_jax.studies import search

    _check_processes(options.processes)
    require(options.seeds >= 1, "--seeds", options.seeds, "at least 1")
    require(options.trials >= 0, "--trials", options.trials, "at least 1")
    require(bool(options.grid) != bool(options.trials), "sweep", "--grid and --trials", "one of the two")
    require(not options.grid or options.samples is None, "--samples", options.samples, "left out beside --grid")
    if options.trials:
        search.load_optuna()


def _run_sweep(options: argparse.Namespace, setting: Any, points: Any, space: Any | None) -> dict[str, Any]:
    from stepwise_jax.studies import search, sweep_run
    from stepwise_jax.studies.local_executor import default_processes

    def execute(cells: Sequence[Any]) -> list[Any]:
        return _run(cells, options.processes)

    if space is None:
        return sweep_run.run_grid(setting, points, execute)
    study = search.Search(space, options.workdir, setting.experiment.seed)
    at_a_time = options.processes or default_processes()
    return sweep_run.run_search(setting, study, options.trials, at_a_time, execute)


def _planner(options: argparse.Namespace, fields: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    """A function from more words to the experiment with these fields too, and its plan."""
    from stepwise_jax.data import datasets
    from stepwise_jax.plans.planning import make_plan

    # The files of a folder are counted once, not for every point.
    sizes = functools.cache(datasets.sizes)

    @functools.cache
    def planned(words: tuple[str, ...]) -> Any:
        experiment = load_experiment(options.config, [*fields, *words], options.command)
        return experiment, make_plan(experiment.plan, sizes(experiment.data).train, experiment.optimizer)

    return lambda words: planned(tuple(words))


def _check_processes(processes: int) -> None:
    require(processes >= 0, "--processes", processes, "at least 1, or 0 for one a device or core")


def _checked_sizes(experiments: Mapping[str, ExperimentConfig]) -> dict[str, int]:
    """M of each experiment, whose networks are checked."""
    from stepwise_jax.data import datasets

    sizes = {name: datasets.sizes(each.data) for name, each in experiments.items()}
    for name, each in {(each.model, each.data.image_size): (name, each) for name, each in experiments.items()}.values():
        networks.build_network(each, sizes[name].num_classes)
    for weights in {each.model.initial_weights for each in experiments.values()} - {None}:
        require(Path(str(weights)).is_file(), "model.initial_weights", weights, "a file of weights: there is none")
    return {name: each.train for name, each in sizes.items()}


def _prepare(experiments: Mapping[str, ExperimentConfig]) -> None:
    """Prepares the data of experiments, once each."""
    from stepwise_jax.cli.display import make_display
    from stepwise_jax.data import datasets

    with make_display(sys.stderr) as display:
        for data in dict.fromkeys(each.data for each in experiments.values()):
            datasets.prepare(data, display.preparing)


def _run(cells: Sequence[Any], processes: int) -> list[Any]:
    """Runs what is not finished, `processes` jobs at a time (0: one a GPU or core), and returns what failed."""
    from stepwise_jax.cli.study_display import make_study_display
    from stepwise_jax.studies.local_executor import default_processes, make_slots, run_jobs

    slots = make_slots(processes or default_processes())
    with stop_on_signals() as stop:
        display = make_study_display(cells)
        try:
            return run_jobs(cells, slots, display, stop)
        finally:
            display.finish()
