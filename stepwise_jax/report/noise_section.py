"""Noise in a report: accuracy against Eq. 10, and the formulas against the noise that was measured."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from stepwise_jax.formatting import format_estimate, format_number, format_percent
from stepwise_jax.report.blocks import Block, Heading, Notes, Paragraph, Picture, Table
from stepwise_jax.report.figures import WIDTH, Theme, make_picture
from stepwise_jax.studies.statistics import predictors
from stepwise_jax.studies.statistics.predictors import LOSSES, PREDICTORS, Agreement, ArmRuns
from stepwise_jax.workdir.records import Row
from stepwise_jax.workdir.runs import Run

_MARKERS = "osD^vPX*<>"

_READING = (
    "tr Σ is the total variance of the gradient of one example and |G|² the squared norm of the mean gradient, at "
    "fixed weights; B_simple = tr Σ / |G|², in examples. Frozen statistics are those of evaluation mode, in which "
    "examples do not influence each other; with those of the batch, the network is in training mode. A step adds the "
    "variance λ² tr Σ / b to the weights, which is λ tr Σ / b per unit of λ. In brackets: 95 % jackknife intervals."
)


def draw_noise(name: str, run: Run) -> Picture | None:
    """Draw top-1 against noise scale (Eq. 10) for each evaluated epoch; None if no epoch was evaluated."""
    rows = [row for row in run.records.epochs if row["top1"] is not None and row["noise_scale"] > 0]
    if not rows:
        return None
    description = "Test accuracy of each epoch against its noise scale, stages marked"
    return make_picture(name, description, partial(_noise_figure, run, rows))


def _noise_figure(run: Run, rows: Sequence[Mapping[str, float]], theme: Theme) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["noise_scale"] for row in rows], [100 * row["top1"] for row in rows], color=theme.muted, zorder=1)
    handles = []
    for index, stage in enumerate(run.stages):
        in_stage = [row for row in rows if row["stage"] == index + 1]
        style = {
            "color": theme.palette[index % len(theme.palette)],
            "marker": _MARKERS[index % len(_MARKERS)],
            "linestyle": "none",
            "markersize": 4.5,
        }
        axes.plot([row["noise_scale"] for row in in_stage], [100 * row["top1"] for row in in_stage], **style)
        handles.append(Line2D([], [], **style, label=str(stage["name"])))
    values = [row["noise_scale"] for row in rows]
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 2)
    # A narrow range may not contain a power of ten to label.
    steps = (1.0, 2.0, 5.0) if max(values) < 50 * min(values) else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(numticks=7, subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.grid(color=theme.muted, linewidth=0.5, alpha=0.6)
    axes.set(xlabel="Noise scale (learning rate × examples / batch size)", ylabel="Test accuracy, top-1 (%)")
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 8), frameon=False, fontsize=8)
    return figure


def measured_noise_blocks(run: Run, level: int, suffix: str) -> list[Block]:
    """Return the section about the measured noise of a run; nothing if none was measured."""
    rows = run.records.noise
    if not rows:
        return []
    figure = draw_measured_noise(f"measured_noise{suffix}", rows)
    pictures = [] if figure is None else [figure]
    heading = Heading("Gradient noise, measured", level)
    lead = Paragraph("Points on the dashed line are proportional to the formula; look at which of the two they follow.")
    blocks = [heading, lead, *pictures, measured_noise_table(rows)]
    return [*blocks, Paragraph(_READING), Paragraph(_measuring_cost(run))]


def measured_noise_table(rows: Sequence[Row]) -> Table:
    """Return a table of measurements beside Eq. 10 and lambda / b."""
    header = ("stage", "λM/b (Eq. 10)", "λ/b", "λ tr Σ/b", "tr Σ", "|G|²", "B_simple")
    return Table(header, tuple(map(_measured_row, rows)))


def _measured_row(row: Row) -> tuple[str, ...]:
    formulas = (format_number(row[name]) for name in ("noise_scale", "rate_over_batch", "step_noise"))
    names = ("trace", "squared_norm", "b_simple")
    estimates = (format_estimate(row[name], *row[f"{name}_interval"]) for name in names)
    return (f"{row['stage_name']}, {row['side']}, {row['statistics']}", *formulas, *estimates)


def _measuring_cost(run: Run) -> str:
    """What measuring took, of the run so far."""
    rows, last = run.records.noise, run.records.epochs[-1]
    seen, spent = sum(row["microbatches"] * row["microbatch_size"] for row in rows), sum(row["seconds"] for row in rows)
    seconds = (run.summary or {}).get("seconds") or {}
    whole = sum(seconds.values()) or sum(sum(row["seconds"].values()) for row in run.records.epochs)
    share = f", {format_percent(spent / whole)} of the run's time" if whole else ""
    samples = format_percent(seen / last["examples_seen"])
    return f"Measuring saw {seen:,} examples, {samples} of those trained on, in {spent:,.1f} s{share}."


_PREDICTOR_NOTE = (
    "A predictor of a strategy is its mean over the updates, weighted by their learning rates. Kendall's τ says how "
    "far it and the final loss put the strategies into the same order: 1 for the same, −1 for the reverse. The sums of "
    "the learning rates should be equal: a strategy that travels further differs in more than its noise, and so does "
    "one that has seen other data."
)


def predictor_blocks(runs: ArmRuns) -> list[Block]:
    """Return the section about what orders the losses of a comparison; nothing if its runs measured no noise."""
    if not predictors.has_measurements(runs):
        return []
    found = predictors.agreements(runs)
    return [
        Heading("Which predictor orders the losses"),
        Notes(tuple(predictors.conclude(found, loss) for loss in LOSSES)),
        _predictions_table(runs),
        _agreement_table(found),
        Paragraph(_PREDICTOR_NOTE),
    ]


def _predictions_table(runs: ArmRuns) -> Table:
    header = ("strategy", "sum of λ", *PREDICTORS.values(), *LOSSES.values())
    return Table(header, tuple(_predictions_row(name, of_seed) for name, of_seed in runs.items() if of_seed))


def _predictions_row(name: str, of_seed: Mapping[int, Run]) -> tuple[str, ...]:
    found = [predictors.predict(run) for run in of_seed.values()]
    columns = [[each.predictors[key] for each in found] for key in PREDICTORS]
    columns += [[each.losses[key] for each in found] for key in LOSSES]
    return (name, f"{found[0].rate_sum:.4g}", *(format_number(_mean(column)) for column in columns))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _agreement_table(found: Sequence[Agreement]) -> Table:
    header = ("predictor", "loss", "mean τ", "τ of each seed")
    rows = ((PREDICTORS[each.predictor], LOSSES[each.loss], *_agreement_cells(each)) for each in found)
    return Table(header, tuple(rows), prose=True)


def _agreement_cells(each: Agreement) -> tuple[str, str]:
    if not each.by_seed:
        return "–", "–"
    return f"{each.mean:+.2f}", ", ".join(f"{tau:+.2f}" for tau in each.by_seed.values())


def draw_measured_noise(name: str, rows: Sequence[Row]) -> Picture | None:
    """Draw the measured lambda tr(Sigma) / b against Eq. 10 and against lambda / b; None without a positive value."""
    drawn = [row for row in rows if (row["step_noise"] or 0) > 0 and row["noise_scale"] > 0]
    if not drawn:
        return None
    description = "Measured noise of a step against the formulas, at the sides of each stage"
    return make_picture(name, description, partial(_measured_figure, drawn))


_FORMULAS = {"noise_scale": "λM/b (Eq. 10)", "rate_over_batch": "λ/b"}


def _measured_figure(rows: Sequence[Row], theme: Theme) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    stages = {row["stage"]: str(row["stage_name"]) for row in rows}
    colors = {stage: theme.palette[index % len(theme.palette)] for index, stage in enumerate(stages)}
    panels: Sequence[Axes] = figure.subplots(1, 2, sharey=True)
    for axes, (formula, label) in zip(panels, _FORMULAS.items(), strict=True):
        for row in rows:
            _draw_measurement(axes, row, formula, colors[row["stage"]], theme)
        _draw_proportion(axes, [(row[formula], row["step_noise"]) for row in rows], theme)
        axes.set(xscale="log", yscale="log", xlabel=label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(numticks=5))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        axes.grid(color=theme.muted, linewidth=0.5, alpha=0.6)
    panels[0].set_ylabel("measured λ tr Σ / b")
    handles = [_handle(label=name, marker="o", color=colors[stage]) for stage, name in stages.items()]
    plain: dict[str, Any] = {"color": theme.foreground}
    handles += [_handle(label=side, marker=marker, **plain) for side, marker in _SIDES.items()]
    handles.append(_handle(label="frozen statistics", marker="o", markerfacecolor=theme.background, **plain))
    figure.legend(handles=handles, loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    return figure


_SIDES = {"start": "<", "end": "s"}


def _handle(**style: Any) -> Line2D:
    return Line2D([], [], linestyle="none", markersize=4.5, **style)


def _draw_measurement(axes: Axes, row: Row, formula: str, color: str, theme: Theme) -> None:
    face = color if row["statistics"] == "batch" else theme.background
    style: dict[str, Any] = {"color": color, "markerfacecolor": face, "markersize": 4.5, "marker": _SIDES[row["side"]]}
    ends = [each * row["rate_over_batch"] for each in row["trace_interval"] if each is not None and each > 0]
    if len(ends) == 2:
        axes.plot([row[formula]] * 2, ends, color=color, linewidth=0.8, alpha=0.7)
    axes.plot([row[formula]], [row["step_noise"]], linestyle="none", **style)


def _draw_proportion(axes: Axes, points: Sequence[tuple[float, float]], theme: Theme) -> None:
    """Draw the line on which the measured noise would be proportional to the formula."""
    xs, ys = np.array(points).T
    ends = np.array([xs.min(), xs.max()])
    axes.plot(ends, ends * np.exp(np.mean(np.log(ys / xs))), "--", color=theme.muted, linewidth=1, zorder=0)
