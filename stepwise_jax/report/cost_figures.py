"""Two pictures of a run's records: where its time went, and noise scale against accuracy."""

from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from stepwise_jax.report.blocks import Picture
from stepwise_jax.report.figures import WIDTH, Theme, make_picture
from stepwise_jax.workdir.runs import Run

KINDS = {
    "train": "training",
    "input_wait": "waiting for input",
    "compile": "compiling",
    "evaluate": "evaluating",
    "checkpoint": "writing checkpoints",
}
"""The parts of a run's seconds, as people read them."""

_MARKERS = "osD^vPX*<>"


def draw_seconds(name: str, seconds: Mapping[str, Mapping[str, float]]) -> Picture:
    """One bar for each of some runs, or for the mean of several; `seconds` by label and kind."""
    described = f"Seconds by kind of {', '.join(seconds)}"
    return make_picture(name, described, [(described, partial(_seconds_figure, seconds))])


def _seconds_figure(seconds: Mapping[str, Mapping[str, float]], theme: Theme) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.0 + 0.32 * len(seconds)), layout="constrained")
    axes = figure.subplots()
    lefts = dict.fromkeys(seconds, 0.0)
    for place, (kind, words) in enumerate(KINDS.items()):
        values = [each.get(kind, 0.0) for each in seconds.values()]
        # White seams tell neighbours apart without colour.
        axes.barh(
            range(len(seconds)),
            values,
            0.7,
            list(lefts.values()),
            color=theme.runs[place],
            label=words,
            edgecolor=theme.background,
        )
        lefts = {label: lefts[label] + value for label, value in zip(lefts, values, strict=True)}
    axes.set(yticks=range(len(seconds)), ylim=(len(seconds) - 0.4, -0.6), xlabel="seconds")
    axes.set_yticklabels(list(seconds) if len(seconds) > 1 else [""])
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure


def draw_noise(name: str, run: Run) -> Picture | None:
    """Noise scale (Eq. 10) of each scored epoch against its top-1; None where no epoch was scored."""
    rows = [row for row in run.records.epochs if row["top1"] is not None and row["noise_scale"] > 0]
    if not rows:
        return None
    described = "Test accuracy of each epoch against its noise scale, stages marked"
    return make_picture(name, described, [(described, partial(_noise_figure, run, rows))])


def _noise_figure(run: Run, rows: Sequence[Mapping[str, float]], theme: Theme) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["noise_scale"] for row in rows], [100 * row["top1"] for row in rows], color=theme.faint, zorder=1)
    handles = []
    for place, stage in enumerate(run.stages):
        own = [row for row in rows if row["stage"] == place + 1]
        style = {
            "color": theme.runs[place % len(theme.runs)],
            "marker": _MARKERS[place % len(_MARKERS)],
            "linestyle": "none",
            "markersize": 4.5,
        }
        axes.plot([row["noise_scale"] for row in own], [100 * row["top1"] for row in own], **style)
        handles.append(Line2D([], [], **style, label=str(stage["name"])))
    values = [row["noise_scale"] for row in rows]
    axes.set_xscale("log")
    axes.set_xlim(min(values) / 2, max(values) * 2)
    # A narrow range has no power of ten to label.
    steps = (1.0, 2.0, 5.0) if max(values) < 50 * min(values) else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(numticks=7, subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.grid(color=theme.faint, linewidth=0.5, alpha=0.6)
    axes.set(xlabel="Noise scale (learning rate × examples / batch size)", ylabel="Test accuracy, top-1 (%)")
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 8), frameon=False, fontsize=8)
    return figure
