"""The page of a comparison: verdict, paired differences, curves with bands over seeds, and cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.serialization import model_name
from stepwise_jax.formatting import format_operations
from stepwise_jax.report.blocks import Block, Heading, Notes, Paragraph, Table, Verdict
from stepwise_jax.report.charts.seconds import draw_seconds
from stepwise_jax.report.comparisons.arms import ArmStyles, arm_styles, styled_table, with_labels
from stepwise_jax.report.comparisons.differences import difference_blocks
from stepwise_jax.report.comparisons.target_section import target_blocks
from stepwise_jax.report.configuration_section import configuration_blocks
from stepwise_jax.report.curves import draw_curves
from stepwise_jax.report.noise_section import predictor_blocks
from stepwise_jax.report.paper_section import paper_blocks
from stepwise_jax.report.predictions_section import predictions_blocks
from stepwise_jax.report.series import group_series
from stepwise_jax.studies import comparison_file, comparison_folder
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_table import FinishedRuns, verdict
from stepwise_jax.studies.designs.summary import describe_folder
from stepwise_jax.studies.results import Results
from stepwise_jax.studies.statistics import predictors
from stepwise_jax.studies.tuning import TUNING_HEADER, tuning_rows
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.predictions import read_predictions
from stepwise_jax.workdir.records import TIME_KINDS
from stepwise_jax.workdir.runs import Run


def comparison_page(results: Results) -> tuple[Block, ...]:
    """Return the page of a comparison, finished or not.

    Raises:
      InputError: if none of its runs is finished.
    """
    root, compared, finished = results.root, results.comparison, results.finished
    if not any(finished.values()):
        raise InputError(f"{root} has no finished run yet: there is nothing to show")
    runs = [run for of_seed in results.runs.values() for run in of_seed.values()]
    differences, styles = results.differences(), arm_styles(compared.arms)
    reference = styles[compared.arms[0].name].label
    return (
        Heading(f"Comparison: {reference} and {_counted(len(compared.arms) - 1, 'other')}", level=1),
        Verdict(verdict(reference, with_labels(differences, styles))),
        Paragraph(_setting(compared, finished, runs[0], reference)),
        *_unfinished(compared, finished, root),
        *[Paragraph(sentence) for sentence in describe_folder(root)],
        *difference_blocks(compared, finished, differences, styles),
        *_curves(results.runs, styles),
        *_strategies(compared, results.runs, styles),
        *_predictors(results.runs, styles),
        *paper_blocks(runs),
        *_cost(results, styles),
        *_tuning(root, styles),
        *_first_predictions(compared, finished, root, styles),
        Heading("Configuration"),
        Paragraph(f"The configuration of {runs[0].name}; the other runs differ in their strategy and seed."),
        *configuration_blocks(runs[0]),
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _setting(compared: Comparison, finished: FinishedRuns, run: Run, reference: str) -> str:
    experiment, plan = compared.experiment, compared.experiment.plan
    images = max(len(each.correct) for of_seed in finished.values() for each in of_seed.values())
    rate = f"λ = {plan.learning_rate:g}{' before tuning' if compared.protocol.tune_trials else ''}"
    size, examples = experiment.data.image_size, run.stages[-1]["examples"]
    return (
        f"{model_name(experiment)} on {experiment.data.name} at {size}×{size} pixels in {experiment.dtype}: M = "
        f"{examples:,} training images, {images:,} images scored, b = {plan.batch_size}, {rate}, "
        f"seeds {compared.seeds[0]} to {compared.seeds[-1]}, on {run.config.get('device')}. "
        f"The reference is {reference}."
    )


def _unfinished(compared: Comparison, finished: FinishedRuns, root: Path) -> list[Block]:
    """How many runs are missing, and which failed."""
    planned = len(compared.arms) * len(compared.seeds)
    done = sum(map(len, finished.values()))
    path = root / comparison_folder.FAILURES_FILE
    failures = read_json(path)["failures"] if path.exists() and done < planned else []
    progress = [Paragraph(f"{done} of {planned} runs are finished.")] if done < planned else []
    failed = [Notes(tuple(f"{each['run']} failed: {each['message']}" for each in failures))] if failures else []
    return [*progress, *failed]


def _curves(runs: predictors.ArmRuns, styles: ArmStyles) -> list[Block]:
    groups = {styles[name].label: list(of_seed.values()) for name, of_seed in runs.items()}
    lead = (
        "Means over the seeds, with their range; look at which strategy is ahead after equally many samples, not only "
        "at the end. Where lines coincide, they are drawn side by side."
    )
    return [Heading("Curves"), Paragraph(lead), draw_curves(group_series(groups))]


def _predictors(runs: predictors.ArmRuns, styles: ArmStyles) -> list[Block]:
    """The section about predictors; its table of strategies names them in words."""
    return [
        styled_table(block, styles) if isinstance(block, Table) and block.header[0] == "strategy" else block
        for block in predictor_blocks(runs)
    ]


def _cost(results: Results, styles: ArmStyles) -> list[Block]:
    seconds = {styles[name].label: of_kind for name, of_kind in _mean_seconds(results.finished).items()}
    return [
        Heading("Cost"),
        Paragraph(
            "What one run of each strategy takes; look at the shares before you compare accuracies. Planned samples "
            "are epochs times examples; fed are the full batches, without the rest of each epoch."
        ),
        draw_seconds("seconds", seconds),
        styled_table(_cost_table(results), styles),
        *target_blocks(results, styles),
    ]


def _mean_seconds(finished: FinishedRuns) -> Mapping[str, Mapping[str, float]]:
    """Seconds by kind for each strategy: the mean over its runs."""
    return {
        name: {kind: _mean([run.summary["seconds"].get(kind, 0.0) for run in of_seed.values()]) for kind in TIME_KINDS}
        for name, of_seed in finished.items()
        if of_seed
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _cost_table(results: Results) -> Table:
    """Samples, updates, operations and seconds of one run of each strategy, relative to the reference."""
    of_reference = "(of the reference)"
    header = ("strategy", f"samples planned {of_reference}", "samples fed", f"updates {of_reference}")
    started = {name: list(of_seed.values()) for name, of_seed in results.finished.items() if of_seed}
    first = next(iter(started.values()))[0].summary
    table = []
    for name, of_seed in started.items():
        summary = of_seed[0].summary
        seconds = _mean([sum(run.summary["seconds"].values()) for run in of_seed])
        planned, updates = (f"{summary[key]:,} ({summary[key] / first[key]:.0%})" for key in ("samples", "updates"))
        work = format_operations(summary["flops"]) if summary.get("flops") else "–"
        fed = next(iter(results.runs[name].values())).records.epochs[-1]["examples_seen"]
        table.append((name, planned, f"{fed:,}", updates, work, f"{seconds:,.0f}"))
    return Table((*header, "operations", "seconds per run"), tuple(table))


def _strategies(compared: Comparison, runs: predictors.ArmRuns, styles: ArmStyles) -> list[Block]:
    table = []
    for each in compared.arms:
        first = next(iter(runs[each.name].values()), None)
        stages = () if first is None else first.stages
        description = "; ".join(
            f"{stage['name']}: {_counted(stage['epochs'], 'epoch')} of {stage['examples']:,}, b {stage['batch_size']}, "
            f"λ {stage['learning_rate']:.3g}{_drops(stage)}"
            for stage in stages
        )
        table.append((each.name, each.title, each.name, description or "–"))
    shown = Table(("strategy", "description", "name for commands", "stages"), tuple(table), prose=True)
    lead = "What each strategy did; look at which of data, batch size b and learning rate λ it changes."
    return [Heading("The strategies"), Paragraph(lead), styled_table(shown, styles)]


def _tuning(root: Path, styles: ArmStyles) -> list[Block]:
    tuned = comparison_file.read_tuning(root)
    if not tuned:
        return []
    lead = Paragraph("Look at whether a best rate lies at the end of those that were tried.")
    return [Heading("Tuning"), lead, styled_table(Table(TUNING_HEADER, tuple(tuning_rows(tuned))), styles)]


def _drops(stage: Mapping[str, Any]) -> str:
    if stage.get("epoch_rates"):
        return f" in the first epoch, {stage['epoch_rates'][-1]:.3g} in the last"
    return (
        f", × {stage['decay_factor']:g} after {', '.join(map(str, stage['milestones']))}" if stage["milestones"] else ""
    )


def _first_predictions(compared: Comparison, finished: FinishedRuns, root: Path, styles: ArmStyles) -> list[Block]:
    """The test predictions of the reference, for the first finished seed."""
    name = compared.arms[0].name
    if not finished[name]:
        return []
    seed = min(finished[name])
    predictions = read_predictions(compared.run_folder(root, name, seed))
    if predictions is None:
        return []
    lead = Paragraph("The predictions of one network of the reference; those of the others have reports of their own.")
    title = f"The network of {styles[name].label}, seed {seed}"
    return [Heading(title), lead, *predictions_blocks(predictions, 3, "")]
