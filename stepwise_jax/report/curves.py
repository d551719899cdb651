"""Training curves: accuracy, loss, learning rate, batch size and noise scale, by epoch and by samples seen.

A strip along the top shows the stages of each run. The same records give the same bytes.
"""

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from matplotlib.transforms import offset_copy

from stepwise_jax.errors import SaveError
from stepwise_jax.report.blocks import Picture
from stepwise_jax.report.charts.curve_data import AXIS_LABELS, curves_document
from stepwise_jax.report.charts.panels import (
    CurvePanel,
    curve_panels,
    is_logarithmic,
    panel_values,
    value_limits,
)
from stepwise_jax.report.charts.stage_strip import draw_strip
from stepwise_jax.report.figures import WIDTH, Theme, make_picture, render_files
from stepwise_jax.report.series import AXES, Axis, Series, epoch_ends, run_series, stage_boundaries
from stepwise_jax.runtime.files import atomic_write
from stepwise_jax.workdir.runs import read_runs

_TRAINING_STYLE = {"linewidth": 0.9, "alpha": 0.65}

_BAND_ALPHA = 0.18

# Two labels of at most this many characters fit side by side; longer ones than the other have several lines.
_SHORT_LABEL, _LONGEST_LABEL = 31, 66

# Points between schedules that coincide, and from the first to the last of many.
_LARGEST_SHIFT, _SPREAD = 2.2, 14

_DASHES = ("-", "--", "-.", ":")

# Inches: the height of a panel of height 1, the margins, and the gaps between rows and columns.
_UNIT = 0.72

_LEFT, _RIGHT, _BOTTOM, _ROW_GAP, _COLUMN_GAP = 0.62, 0.15, 0.46, 0.3, 0.3


def draw_curves(runs: Sequence[Series]) -> Picture:
    """Draw runs by epoch and by samples seen, side by side; a band spans the seeds of a mean curve."""
    names = ", ".join(run.name for run in runs)
    stages = "; ".join(dict.fromkeys(" → ".join(str(stage["name"]) for stage in run.stages) for run in runs))
    description = f"Test accuracy, loss, learning rate, batch size and noise scale of {names}, in stages {stages}"
    picture = make_picture("curves", description, partial(_draw_figure, runs, AXES))
    return dataclasses.replace(picture, curves=curves_document(runs, curve_panels(runs), [*map(_curve_label, runs)]))


def write_curves(workdir: Path) -> None:
    """Write the curves of one run into its folder, as `curves.png` and `curves.svg`.

    Raises:
      SaveError: if one of them cannot be written.
    """
    png, svg = render_files(partial(_draw_figure, run_series(read_runs([workdir])), AXES))
    _write_figure(workdir / "curves.png", png)
    _write_figure(workdir / "curves.svg", svg)


def _write_figure(path: Path, content: bytes) -> None:
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise SaveError(
            f"{path} cannot be written ({error.strerror}). Training is finished and saved; run the same command again "
            "to draw its curves"
        ) from error


def _draw_figure(runs: Sequence[Series], axes: Sequence[Axis], theme: Theme) -> Figure:
    handles = _legend(runs, theme)
    labels = [str(handle.get_label()) for handle in handles]
    legend_columns = len(axes) * (2 if max(map(len, labels)) <= _SHORT_LABEL else 1)
    lines = math.ceil(len(handles) / legend_columns) * max(label.count("\n") + 1 for label in labels)
    panels = curve_panels(runs)
    figure, grid = _empty_figure(len(runs), panels, len(axes), lines)
    for column, axis in enumerate(axes):
        draw_strip(grid[0, column], runs, axis, theme)
        for row, panel in enumerate(panels, start=1):
            _draw_panel(grid[row, column], panel, runs, axis, theme)
        _label_x(grid[-1, column], runs, axis)
    for row, panel in enumerate(panels, start=1):
        _scale_y(grid[row, 0], panel, runs)
    figure.legend(handles=handles, loc="upper left", ncols=legend_columns, frameon=False)
    return figure


def _empty_figure(
    runs: int, panels: Sequence[CurvePanel], columns: int, legend_lines: int
) -> tuple[Figure, np.ndarray]:
    """A figure with space for the legend, and its axes [1 + panels, columns]; the first row is the strip."""
    # Every size is known in advance, in inches: matplotlib's layout engine would double the time.
    heights = [0.3 * runs, *(_UNIT * panel.height for panel in panels)]
    top = 0.2 + 0.18 * legend_lines
    width, height = WIDTH * columns, top + sum(heights) + _ROW_GAP * len(panels) + _BOTTOM
    figure = Figure(figsize=(width, height))
    sides = {"left": _LEFT / width, "right": 1 - _RIGHT / width, "bottom": _BOTTOM / height, "top": 1 - top / height}
    column_gap = columns * _COLUMN_GAP / (width - _LEFT - _RIGHT - (columns - 1) * _COLUMN_GAP)
    ratios = {"height_ratios": heights, "hspace": _ROW_GAP * len(heights) / sum(heights), "wspace": column_gap}
    grid = figure.subplots(
        len(heights), columns, squeeze=False, sharex="col", sharey="row", gridspec_kw={**sides, **ratios}
    )
    return figure, grid


def _legend(runs: Sequence[Series], theme: Theme) -> list[Line2D | Patch]:
    lines = [
        Line2D([], [], **_line_style(run, theme), label=textwrap.fill(_curve_label(run), _LONGEST_LABEL))
        for run in runs
    ]
    band = Patch(color=theme.foreground, alpha=_BAND_ALPHA, linewidth=0, label="lowest to highest of the seeds")
    return [*lines, *([band] if any(run.lowest for run in runs) else [])]


def _curve_label(run: Series) -> str:
    """The name of a curve and its last score: `demo, top-1 86.00 %`."""
    scores = [row["top1"] for row in run.rows if row["top1"] is not None]
    mean = "mean " if run.lowest else ""
    score = f", {mean}top-1 {100 * scores[-1]:.2f} %" if scores else ""
    return f"{run.name}{score}{'' if run.finished else ' so far'}"


def _line_style(run: Series, theme: Theme) -> dict[str, Any]:
    """Colour and dashes of a run; every combination is used once before any is repeated."""
    count = len(theme.palette)
    dashes = _DASHES[run.color // count % len(_DASHES)]
    return {"color": theme.palette[run.color % count], "linestyle": dashes, "linewidth": 1.6}


def _draw_panel(axes: Axes, panel: CurvePanel, runs: Sequence[Series], axis: Axis, theme: Theme) -> None:
    axes.set_title(panel.label, loc="left", fontsize=9, pad=4)
    axes.grid(axis="y", color=theme.muted, linewidth=0.5, alpha=0.6)
    axes.tick_params(length=2.5)
    _draw_boundaries(axes, runs, axis, theme)
    for place, run in enumerate(runs):
        if panel.stepped:
            _draw_schedule(axes, panel, run, axis, _line_style(run, theme), _shift(place, len(runs)))
            continue
        for field in panel.fields:
            style = _line_style(run, theme) | (_TRAINING_STYLE if field == "train_loss" else {})
            _draw_line(axes, panel, field, run, axis, style)
    if len(panel.fields) > 1:
        test_style = {"color": theme.foreground, "linewidth": 1.6}
        handles = [Line2D([], [], **{**test_style, **style}) for style in ({}, _TRAINING_STYLE)]
        # Beside the title of the panel: inside the axes, the legend would cover a curve.
        axes.legend(
            handles,
            ["test", "training"],
            loc="lower right",
            bbox_to_anchor=(1, 1),
            borderaxespad=0,
            frameon=False,
            fontsize=8,
            ncols=2,
        )


def _draw_boundaries(axes: Axes, runs: Sequence[Series], axis: Axis, theme: Theme) -> None:
    edges = {tuple(stage_boundaries(run, axis)) for run in runs}
    if len(edges) == 1:
        for left, right in itertools.islice(itertools.pairwise(*edges), 0, None, 2):
            axes.axvspan(left, right, color=theme.band, linewidth=0, zorder=0)
    else:
        for edge in sorted({edge for each in edges for edge in each[1:-1]}):
            axes.axvline(edge, color=theme.muted, linewidth=0.9, zorder=0)


def _shift(place: int, count: int) -> float:
    """How many points a schedule is drawn above its values, so that those that coincide lie side by side."""
    return ((count - 1) / 2 - place) * min(_LARGEST_SHIFT, _SPREAD / count)


def _draw_schedule(axes: Axes, panel: CurvePanel, run: Series, axis: Axis, style: dict[str, Any], shift: float) -> None:
    values = [row[panel.fields[0]] for row in run.rows]
    # Not clipped: a shifted line may lie above the highest value.
    (line,) = axes.step([0, *epoch_ends(run, axis)], [values[0], *values], where="pre", clip_on=False, **style)
    # Only now: the limits of the axes follow from the values.
    line.set_transform(offset_copy(axes.transData, axes.get_figure(root=True), y=shift, units="points"))


def _draw_line(axes: Axes, panel: CurvePanel, field: str, run: Series, axis: Axis, style: dict[str, Any]) -> None:
    ends = epoch_ends(run, axis)
    values: list[Any] = [row.get(field) for row in run.rows]
    points = [(x, panel.scale * y) for x, y in zip(ends, values, strict=True) if y is not None]
    if run.lowest and field != "train_loss":
        _draw_band(axes, panel, field, run, ends, style["color"])
    # A single point makes no line, so few points get markers.
    marker = {"marker": "o", "markersize": 2.5} if len(points) <= 12 else {}
    axes.plot([x for x, _ in points], [y for _, y in points], **style, **marker)


def _draw_band(axes: Axes, panel: CurvePanel, field: str, run: Series, ends: Sequence[float], color: str) -> None:
    """Fill the range from the lowest to the highest seed."""
    spans = [
        (x, panel.scale * low[field], panel.scale * high[field])
        for x, low, high in zip(ends, run.lowest, run.highest, strict=True)
        if low.get(field) is not None
    ]
    x, lowest, highest = zip(*spans, strict=True) if spans else ((), (), ())
    axes.fill_between(x, lowest, highest, color=color, alpha=_BAND_ALPHA, linewidth=0)


def _scale_y(axes: Axes, panel: CurvePanel, runs: Sequence[Series]) -> None:
    values = panel_values(panel, runs)
    if is_logarithmic(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        return
    limits = value_limits(panel, values)
    if limits is not None:
        axes.set_ylim(*limits)
    if panel.stepped:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))


def _label_x(axes: Axes, runs: Sequence[Series], axis: Axis) -> None:
    axes.set_xlim(0, max(stage_boundaries(run, axis)[-1] for run in runs))
    axes.set_xlabel(AXIS_LABELS[axis])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick_label_formatter(axis)))


def _tick_label_formatter(axis: Axis) -> Callable[[float, object], str]:
    """Tick labels: 20, 40, ...; and for samples 5 k, 1.5 M."""

    def label(value: float, _: object) -> str:
        for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
            if axis == "samples" and value >= size:
                return f"{value / size:g}{unit}"
        return f"{value:g}"

    return label
