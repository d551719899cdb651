"""The command compare: trains strategies x seeds, or plans a design."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from stepwise_jax.cli import study_commands
from stepwise_jax.errors import StepwiseError


def compare(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Trains strategies x seeds, or resumes; ends with paired differences, their significance, and a report."""
    from stepwise_jax.cli.comparisons import planned, request
    from stepwise_jax.studies.comparison_file import COMPARISON_FILE
    from stepwise_jax.studies.comparison_folder import check_comparison_folder
    from stepwise_jax.studies.executors.mirror import recorded_study

    request.check_options(options, fields)
    log_words = () if options.plan_design else study_commands.log_words(options)
    with recorded_study(options.mirror, COMPARISON_FILE) as recorded:
        asked = request.make_request(options, fields, recorded)
        asked, stages = _drop_duplicates(asked)
        if recorded:
            check_comparison_folder(recorded, asked.comparison, asked.design)
    if options.plan_design:
        planned.plan_design(options, asked, stages)
        return
    execute = study_commands.choose_executor(options)
    _train(options, asked, stages, log_words, execute)


def _drop_duplicates(asked: Any) -> tuple[Any, Mapping[str, Any]]:
    """The request without arms that would repeat another's runs, and the stages of each arm."""
    from stepwise_jax.functional.checks import check_experiment
    from stepwise_jax.studies import comparison

    sizes = study_commands.check_weights(asked.experiments)
    stages = comparison.make_plans(asked.experiments, {name: each.train for name, each in sizes.items()})
    for name, experiment in asked.experiments.items():
        check_experiment(experiment, stages[name], sizes[name].num_classes)
    pairs = comparison.find_duplicates(asked.experiments, stages)
    compared = comparison.drop_duplicates(asked.comparison, pairs, named=asked.arms_named)
    kept = {arm.name: stages[arm.name] for arm in compared.arms}
    return dataclasses.replace(asked, comparison=compared), kept


def _train(
    options: argparse.Namespace,
    asked: Any,
    stages: Mapping[str, Any],
    log_words: Sequence[str],
    execute: study_commands.Execute,
) -> None:
    from stepwise_jax.cli.comparisons import tuned
    from stepwise_jax.studies import comparison, comparison_file, comparison_folder

    folder, words = options.workdir, [*asked.fields, *log_words]
    comparison_folder.check_comparison_folder(folder, asked.comparison, asked.design)
    mirror = study_commands.open_mirror(options)
    execute = mirror.mirrored(execute)
    recorded = comparison_file.read_tuning(folder)
    known = tuned.use_best_rates(asked, stages, recorded)
    comparison_folder.check_finished_runs(known[0].comparison, folder, known[0].experiments, known[1])
    trials = tuned.make_trials(asked, folder, recorded, words)
    # The folder may hold more strategies and seeds from earlier commands.
    comparison_folder.open_comparison_folder(folder, asked.comparison, asked.design)
    study_commands.prepare_data(asked.experiments)
    asked, stages = tuned.use_best_rates(asked, stages, tuned.tune(folder, recorded, trials, execute))
    jobs = comparison.make_jobs(asked.comparison, folder, stages, study_commands.launch_command(), words)
    comparison_folder.record_design_in_runs(folder, asked.comparison)
    failures: list[Any] = []
    for due in comparison.split_by_look(asked.comparison, jobs):
        failures += execute(due)
        comparison_folder.write_failures(folder, failures)
        _show(folder, mirror)
        mirror.copy()
    if failures:
        first = f"{failures[0].job.name}: {failures[0].message}"
        raise StepwiseError(f"{len(failures)} of {len(jobs)} runs failed: {first}")


def _show(folder: Any, mirror: Any) -> None:
    from stepwise_jax.cli.console import make_console, print_prose
    from stepwise_jax.cli.study_tables import print_comparison
    from stepwise_jax.report.report import write_comparison
    from stepwise_jax.studies import comparison_file
    from stepwise_jax.studies.designs.summary import describe_folder
    from stepwise_jax.studies.results import read_results
    from stepwise_jax.studies.statistics import predictors

    found = read_results(folder)
    comparison_file.record_look(folder)
    # Before the results are seen: a look that is not on record could be taken again.
    mirror.copy()
    print_comparison(found.comparison, found.finished, found.differences())
    for sentence in (*predictors.conclusions(found.runs), *describe_folder(folder)):
        print_prose(make_console(), sentence)
    if any(found.finished.values()):
        print(f"report: {write_comparison(found, folder / 'report')}")
