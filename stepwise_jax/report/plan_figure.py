"""The figure of plans: data, batch size, learning rate and noise scale over their planned samples."""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale
from stepwise_jax.report.figures import WIDTH, DrawFunction, Theme

_PANELS = {
    "data\n(% of M)": lambda stage, epoch: 100 * stage.fraction,
    "batch size\nb": lambda stage, epoch: stage.batch_size,
    "learning rate\nλ": learning_rate_at,
    "noise scale\nλM/b": lambda stage, epoch: noise_scale(stage, learning_rate_at(stage, epoch)),
    "image size\n(pixels)": lambda stage, epoch: stage.image_size,
}

_LINES = ("-", "--", "-.", ":")


def plans_figure(plans: Mapping[str, Sequence[Stage]], baseline: Sequence[Stage], examples: int) -> DrawFunction:
    """Return a function that draws data, batch size, learning rate and noise scale of plans over their planned samples.

    Args:
      plans: stages by name.
      baseline: its stages, drawn behind.
      examples: M, the unit of the samples.
    """
    return partial(_plans_figure, plans, baseline, examples)


def _plans_figure(
    plans: Mapping[str, Sequence[Stage]], baseline: Sequence[Stage], examples: int, theme: Theme
) -> Figure:
    sized = any(stage.image_size for stages in plans.values() for stage in stages)
    panels = list(_PANELS.items())[: 5 if sized else 4]
    figure = Figure(figsize=(1.4 * WIDTH, 0.9 + 1.35 * len(panels)), layout="constrained")
    rows = figure.subplots(len(panels), 1, sharex=True)
    for axes, (label, value) in zip(rows, panels, strict=True):
        for index, (name, stages) in enumerate({"baseline": baseline, **plans}.items()):
            color = theme.palette[(index - 1) % len(theme.palette)] if index else theme.foreground
            line = _LINES[(index - 1) // len(theme.palette) % len(_LINES)] if index else (0, (1, 2))
            steps = _steps(stages, value, examples)
            axes.stairs(*steps, baseline=None, color=color, linestyle=line, label=name, linewidth=1.4)
        axes.set_ylabel(label)
        axes.margins(x=0.01, y=0.1)
        if label.startswith(("batch", "learning", "noise")):
            _use_log_scale(axes)
        axes.grid(color=theme.muted, linewidth=0.5, alpha=0.6)
    rows[0].set_ylim(0, 108)
    rows[-1].set_xlabel("samples planned, in units of the training set (M)")
    figure.align_ylabels()
    handles, names = rows[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure


def _use_log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # A narrow range may not contain a power of ten to label.
    axes.yaxis.set_major_locator(LogLocator(numticks=5, subs=(1.0, 2.0, 5.0) if high < 50 * low else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def _steps(stages: Sequence[Stage], value: Any, examples: int) -> tuple[list[float], list[float]]:
    """The values that a quantity of a plan takes, and the samples between which it does, in units of M."""
    epochs = [(value(stage, epoch), stage.examples) for stage in stages for epoch in range(1, stage.epochs + 1)]
    runs = [(key, sum(size for _, size in group)) for key, group in itertools.groupby(epochs, lambda pair: pair[0])]
    values = [float("nan") if key is None else float(key) for key, _ in runs]
    return values, [done / examples for done in itertools.accumulate((size for _, size in runs), initial=0)]
