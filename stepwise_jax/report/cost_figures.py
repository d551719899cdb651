"""Two figures of a run: its time by activity, and accuracy against noise scale."""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from stepwise_jax.report.blocks import Picture
from stepwise_jax.report.figures import WIDTH, Theme, make_picture
from stepwise_jax.workdir.runs import Run

TIME_KIND_LABELS = {
    "train": "training",
    "input_wait": "waiting for input",
    "compile": "compiling",
    "evaluate": "evaluating",
    "checkpoint": "writing checkpoints",
}
"""Labels for the kinds of time in a run's records."""

_MARKERS = "osD^vPX*<>"


def draw_seconds(name: str, seconds: Mapping[str, Mapping[str, float]]) -> Picture:
    """Draw one stacked bar per label; `seconds` maps a label, such as a run's name, to seconds by kind."""
    description = f"Seconds by kind of {', '.join(seconds)}"
    return make_picture(name, description, [(description, partial(_seconds_figure, seconds))])


def _seconds_figure(seconds: Mapping[str, Mapping[str, float]], theme: Theme) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.0 + 0.32 * len(seconds)), layout="constrained")
    axes = figure.subplots()
    lefts = dict.fromkeys(seconds, 0.0)
    for index, (kind, label) in enumerate(TIME_KIND_LABELS.items()):
        values = [each.get(kind, 0.0) for each in seconds.values()]
        # The edges separate neighbouring bars without relying on colour.
        axes.barh(
            range(len(seconds)),
            values,
            0.7,
            list(lefts.values()),
            color=theme.palette[index],
            label=label,
            edgecolor=theme.background,
        )
        lefts = {name: lefts[name] + value for name, value in zip(lefts, values, strict=True)}
    axes.set(yticks=range(len(seconds)), ylim=(len(seconds) - 0.4, -0.6), xlabel="seconds")
    axes.set_yticklabels(list(seconds) if len(seconds) > 1 else [""])
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure


def draw_noise(name: str, run: Run) -> Picture | None:
    """Draw top-1 against noise scale (Eq. 10) for each evaluated epoch; None if no epoch was evaluated."""
    rows = [row for row in run.records.epochs if row["top1"] is not None and row["noise_scale"] > 0]
    if not rows:
        return None
    description = "Test accuracy of each epoch against its noise scale, stages marked"
    return make_picture(name, description, [(description, partial(_noise_figure, run, rows))])


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
