"""The strip above curves: the stages of each run, and how much of them is done."""

import itertools
from collections.abc import Sequence

from matplotlib.axes import Axes

from stepwise_jax.report.figures import DARK, Theme, contrasting_ink
from stepwise_jax.report.series import Axis, Series, epoch_ends, stage_boundaries
from stepwise_jax.workdir.records import Row


def draw_strip(axes: Axes, runs: Sequence[Series], axis: Axis, theme: Theme) -> None:
    """Draw one bar for each run, from its first stage to its last one."""
    length = max(stage_boundaries(run, axis)[-1] for run in runs)
    for index, run in enumerate(runs):
        place = run.color % len(theme.palette)
        color, ink = theme.palette[place], contrasting_ink(theme.palette[place], DARK.palette[place])
        axes.barh(index, stage_boundaries(run, axis)[-1], 0.8, color=color, alpha=0.35, linewidth=0)
        axes.barh(index, epoch_ends(run, axis)[-1], 0.8, color=color, linewidth=0)
        for stage, (left, right) in zip(run.stages, itertools.pairwise(stage_boundaries(run, axis)), strict=True):
            axes.plot([right, right], [index - 0.4, index + 0.4], color=theme.background, linewidth=1.5)
            name = _fitting_name(stage, (right - left) / length)
            middle = (left + right) / 2
            foreground = ink if middle <= epoch_ends(run, axis)[-1] else theme.foreground
            axes.text(middle, index, name, ha="center", va="center_baseline", color=foreground, weight="bold")
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_axis_off()


def _fitting_name(stage: Row, share: float) -> str:
    """The longest label of a stage that fits into its share of the strip: `A · 20 %`, `A`, or none."""
    name, fraction = str(stage["name"]), f"{100 * stage['fraction']:.3g} %"
    names = (name if "%" in name else f"{name} · {fraction}", name, "")
    return next(each for each in names if len(each) * 0.021 < share)
