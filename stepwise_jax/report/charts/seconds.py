"""The seconds of runs by kind, as bars."""

from collections.abc import Mapping
from functools import partial

from matplotlib.figure import Figure

from stepwise_jax.report.blocks import Picture
from stepwise_jax.report.figures import WIDTH, Theme, make_picture, wrapped
from stepwise_jax.workdir.records import TIME_KINDS
from stepwise_jax.workdir.runs import Run

TIME_KIND_LABELS = {
    "train": "training",
    "input_wait": "waiting for input",
    "compile": "compiling",
    "evaluate": "evaluating",
    "checkpoint": "writing checkpoints",
}
"""Labels for the kinds of time in a run's records."""


def seconds_by_kind(run: Run) -> dict[str, float]:
    """Return the seconds by kind: of the whole run if it is finished, otherwise of its epochs."""
    if run.summary is not None:
        return {kind: run.summary["seconds"].get(kind, 0.0) for kind in TIME_KINDS}
    return {kind: sum(row["seconds"].get(kind, 0.0) for row in run.records.epochs) for kind in TIME_KINDS}


def draw_seconds(name: str, seconds: Mapping[str, Mapping[str, float]]) -> Picture:
    """Draw one stacked bar per label; `seconds` maps a label, such as a run's name, to seconds by kind."""
    description = f"Seconds by kind of {', '.join(seconds)}"
    return make_picture(name, description, partial(_seconds_figure, seconds))


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
    axes.set_yticklabels([wrapped(name) for name in seconds] if len(seconds) > 1 else [""])
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure
