"""The page of a comparison: verdict, paired differences, curves with bands over seeds, and cost."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.serialization import model_name
from stepwise_jax.report.blocks import Block, Heading, Notes, Paragraph, Picture, Table, Verdict
from stepwise_jax.report.comparisons.target_section import target_blocks
from stepwise_jax.report.curves import draw_curves
from stepwise_jax.report.figures import WIDTH, Theme, make_picture
from stepwise_jax.report.noise_section import predictor_blocks
from stepwise_jax.report.paper_section import paper_blocks
from stepwise_jax.report.predictions_section import predictions_blocks
from stepwise_jax.report.run_section import draw_seconds, identity_table
from stepwise_jax.report.series import group_series
from stepwise_jax.studies import comparison_file, comparison_folder
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_table import COMPARISON_HEADER, FinishedRuns, comparison_rows, verdict
from stepwise_jax.studies.designs.summary import describe_folder
from stepwise_jax.studies.statistics import predictors
from stepwise_jax.studies.statistics.paired import Difference
from stepwise_jax.studies.tuning import TUNING_HEADER, tuning_rows
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.predictions import read_predictions
from stepwise_jax.workdir.records import TIME_KINDS
from stepwise_jax.workdir.runs import Run, read_runs

_METHOD_NOTE = (
    "Each difference is the reference's top-1 minus the other strategy's, paired by seed: the two runs of a pair have "
    "the same initial weights, the same seed-dependent subsets, and the same test images. The reference is better or "
    "worse where the paired t test shows a difference, and equivalent where two one-sided t tests show that the "
    "difference is within the margin; else nothing is decided. Each of the two questions has Holm's correction for all "
    "rows. The interval over seeds is Student's t interval of the paired differences; the sign-flip test assumes no "
    "distribution, and with n seeds its p is at least 2 / 2ⁿ before the correction. The interval over images is a "
    "percentile bootstrap of the test set for these seeds; the one over both counts other seeds and other test images "
    "together. So many seeds more would decide as leave no answer open, whatever the mean, if the standard deviation "
    "stays as estimated."
)

_MARKERS = {"better": "D", "worse": "D", "equivalent": "s", "not decided": "o"}


def comparison_page(root: Path) -> tuple[Block, ...]:
    """Return the page of the comparison in a folder, finished or not.

    Raises:
      InputError: if the comparison is damaged, or none of its runs is finished.
    """
    compared = comparison_file.read_comparison(root)
    finished = comparison_folder.read_finished_runs(compared, root)
    folders = [compared.run_folder(root, name, seed) for name, of_seed in finished.items() for seed in of_seed]
    if not folders:
        raise InputError(f"{root} has no finished run yet: there is nothing to show")
    looks = comparison_file.count_looks(root)
    runs, differences = read_runs(folders), comparison_folder.arm_differences(compared, finished, looks)
    reference = compared.arms[0].name
    return (
        Heading(f"Comparison: {reference} and {_counted(len(compared.arms) - 1, 'other')}", level=1),
        Verdict(verdict(reference, differences)),
        Paragraph(_setting(compared, finished, runs[0])),
        *_unfinished(compared, finished, root),
        *[Paragraph(sentence) for sentence in describe_folder(root)],
        Heading("Paired differences"),
        Table(COMPARISON_HEADER, tuple(comparison_rows(compared, finished, differences))),
        *([_forest(reference, differences)] if differences else []),
        Paragraph(_METHOD_NOTE),
        *predictor_blocks(predictors.read_arm_runs(compared, root, finished)),
        *paper_blocks(runs),
        Heading("Curves"),
        _curves(compared, root, runs),
        Heading("Cost"),
        draw_seconds("seconds", _mean_seconds(finished)),
        _cost_table(compared, finished),
        *target_blocks(compared, finished, runs, root),
        Heading("The strategies"),
        _strategies_table(compared, finished, runs, root),
        *_tuning(root),
        *_first_predictions(compared, finished, root),
        Heading("Configuration"),
        Paragraph(f"The configuration of {runs[0].name}; the other runs differ in their strategy and seed."),
        identity_table(runs[0]),
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _setting(compared: Comparison, finished: FinishedRuns, run: Run) -> str:
    experiment, plan = compared.experiment, compared.experiment.plan
    images = max(len(each.ids) for of_seed in finished.values() for each in of_seed.values())
    rate = f"λ = {plan.learning_rate:g}{' before tuning' if compared.protocol.tune_trials else ''}"
    size, examples = experiment.data.image_size, run.stages[-1]["examples"]
    return (
        f"{model_name(experiment)} on {experiment.data.name} at {size}×{size} pixels in {experiment.dtype}: M = "
        f"{examples:,} training images, {images:,} images scored, b = {plan.batch_size}, {rate}, "
        f"seeds {compared.seeds[0]} to {compared.seeds[-1]}, on {run.config.get('device')}. "
        f"The reference is {compared.arms[0].name}."
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


def _forest(reference: str, differences: Sequence[Difference]) -> Picture:
    description = f"Top-1 of {reference} minus each other strategy's: every seed, the mean and its 95 % interval"
    return make_picture("differences", description, [(description, partial(_draw_forest, reference, differences))])


def _draw_forest(reference: str, differences: Sequence[Difference], theme: Theme) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.3 + 0.42 * len(differences)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=theme.foreground, linewidth=0.8)
    for margin in {100 * each.margin for each in differences}:
        axes.axvline(margin, color=theme.muted, linewidth=1, linestyle=":")
        axes.axvline(-margin, color=theme.muted, linewidth=1, linestyle=":")
    for index, each in enumerate(differences):
        shown = each.verdict in ("better", "worse")
        color = theme.palette[1] if shown else theme.palette[0]
        if each.image_interval:
            ends = [100 * each.image_interval.low, 100 * each.image_interval.high]
            axes.plot(ends, [index, index], color=theme.muted, linewidth=8, solid_capstyle="butt", zorder=1)
        if each.interval:
            ends = [100 * each.interval.low, 100 * each.interval.high]
            axes.plot(ends, [index, index], color=color, linewidth=1.8, zorder=2)
        seeds = [100 * value for value in each.by_seed.values()]
        axes.plot(seeds, np.full(len(seeds), index + 0.27), "|", color=theme.foreground, markersize=6, alpha=0.7)
        axes.plot(100 * each.mean, index, _MARKERS[each.verdict], color=color, markersize=6, zorder=3)
    axes.set(yticks=range(len(differences)), ylim=(len(differences) - 0.4, -0.6))
    axes.set_yticklabels([each.other for each in differences])
    axes.set_xlabel(f"points of top-1 by which {reference} is ahead")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=theme.muted, linewidth=0.5, alpha=0.6)
    legend = (
        "line: 95 % over seeds; grey: 95 % over images; ticks: seeds;\n"
        "diamond: better or worse; square: equivalent; dotted: the margin"
    )
    figure.suptitle(legend, x=0.01, ha="left", fontsize=8)
    return figure


def _curves(compared: Comparison, root: Path, runs: Sequence[Run]) -> Picture:
    arms = {
        compared.run_folder(root, arm.name, seed).resolve(): arm.name
        for arm in compared.arms
        for seed in compared.seeds
    }
    return draw_curves(group_series(runs, {run.name: arms[run.folder] for run in runs}))


def _mean_seconds(finished: FinishedRuns) -> Mapping[str, Mapping[str, float]]:
    """Seconds by kind for each strategy: the mean over its runs."""
    return {
        name: {kind: _mean([run.summary["seconds"].get(kind, 0.0) for run in of_seed.values()]) for kind in TIME_KINDS}
        for name, of_seed in finished.items()
        if of_seed
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _cost_table(compared: Comparison, finished: FinishedRuns) -> Table:
    """Samples, updates, operations and seconds of one run of each strategy, relative to the reference."""
    header = ("strategy", "samples", "of the reference", "updates", "of the reference", "FLOPs", "seconds per run")
    started = [(each.name, list(finished[each.name].values())) for each in compared.arms if finished[each.name]]
    first = started[0][1][0].summary
    table = []
    for name, runs in started:
        summary = runs[0].summary
        seconds = _mean([sum(run.summary["seconds"].values()) for run in runs])
        samples, updates = summary["samples"], summary["updates"]
        shares = (f"{samples / first['samples']:.0%}", f"{updates / first['updates']:.0%}")
        work = f"{summary['flops']:.3g}" if summary.get("flops") else "–"
        table.append((name, f"{samples:,}", shares[0], f"{updates:,}", shares[1], work, f"{seconds:,.0f}"))
    return Table(header, tuple(table))


def _strategies_table(compared: Comparison, finished: FinishedRuns, runs: Sequence[Run], root: Path) -> Table:
    plans = {run.folder: run.stages for run in runs}
    table = []
    for each in compared.arms:
        seeds = list(finished[each.name])
        stages = plans[compared.run_folder(root, each.name, seeds[0]).resolve()] if seeds else ()
        description = "; ".join(
            f"{stage['name']}: {_counted(stage['epochs'], 'epoch')} of {stage['examples']:,}, b {stage['batch_size']}, "
            f"λ {stage['learning_rate']:.3g}{_drops(stage)}"
            for stage in stages
        )
        table.append((each.name, each.title, description or "–"))
    return Table(("strategy", "description", "stages"), tuple(table), prose=True)


def _tuning(root: Path) -> list[Block]:
    tuned = comparison_file.read_tuning(root)
    return [Heading("Tuning"), Table(TUNING_HEADER, tuple(tuning_rows(tuned)))] if tuned else []


def _drops(stage: Mapping[str, Any]) -> str:
    if stage.get("epoch_rates"):
        return f" in the first epoch, {stage['epoch_rates'][-1]:.3g} in the last"
    return (
        f", × {stage['decay_factor']:g} after {', '.join(map(str, stage['milestones']))}" if stage["milestones"] else ""
    )


def _first_predictions(compared: Comparison, finished: FinishedRuns, root: Path) -> list[Block]:
    """The test predictions of the reference, for the first finished seed."""
    name = compared.arms[0].name
    if not finished[name]:
        return []
    seed = min(finished[name])
    predictions = read_predictions(compared.run_folder(root, name, seed))
    if predictions is None:
        return []
    return [Heading(f"The network of {name}, seed {seed}"), *predictions_blocks(predictions, 3, "")]
