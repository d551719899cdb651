"""Training curves: accuracy, loss, learning rate, batch size and noise scale, by epoch and by samples seen.

A strip along the top shows the stages of each run. The same records give the same bytes.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from stepwise_jax.errors import SaveError
from stepwise_jax.formatting import metric_label
from stepwise_jax.report.blocks import Picture
from stepwise_jax.report.figures import WIDTH, Theme, contrasting_color, make_picture, render_files
from stepwise_jax.report.series import AXES, Axis, Series, epoch_ends, group_series, other_metrics, stage_boundaries
from stepwise_jax.runtime.files import atomic_write
from stepwise_jax.workdir.records import Row
from stepwise_jax.workdir.runs import read_runs

_AXIS_WORDS: dict[Axis, str] = {"epoch": "by epoch", "samples": "by samples seen"}

_AXIS_LABELS = {"epoch": "epochs", "samples": "samples seen (images)"}


@dataclass(frozen=True)
class CurvePanel:
    """One plotted quantity of the records."""

    label: str
    fields: tuple[str, ...]
    height: float
    stepped: bool = False
    """Whether the quantity is constant during an epoch, rather than measured at its end."""
    scale: float = 1.0


CURVE_PANELS = (
    CurvePanel("Test accuracy, top-1 (%)", ("top1",), 2.8, scale=100),
    CurvePanel("Test accuracy, top-5 (%)", ("top5",), 1.6, scale=100),
    CurvePanel("Cross-entropy loss (nats)", ("test_loss", "train_loss"), 1.8),
    CurvePanel("Learning rate", ("learning_rate",), 1.15, stepped=True),
    CurvePanel("Batch size (images)", ("batch_size",), 1.15, stepped=True),
    CurvePanel("Noise scale (learning rate × examples / batch size)", ("noise_scale",), 1.15, stepped=True),
)

_TRAINING_STYLE = {"linewidth": 0.9, "alpha": 0.65}

_BAND_ALPHA = 0.18

# Two labels of at most this many characters fit side by side.
_SHORT_LABEL = 31

_DASHES = ("-", "--", "-.", ":")

# Inches: the height of a panel of height 1, the margins, and the gaps between rows and columns.
_UNIT = 0.72

_LEFT, _RIGHT, _BOTTOM, _ROW_GAP, _COLUMN_GAP = 0.62, 0.15, 0.46, 0.3, 0.3


def curve_panels(runs: Sequence[Series]) -> tuple[CurvePanel, ...]:
    """Return the panels of these curves: top-5 only where a run has it, and one for each other metric."""
    has_top5 = any(row["top5"] is not None for run in runs for row in run.rows)
    first = [panel for panel in CURVE_PANELS if has_top5 or panel.fields != ("top5",)]
    others = [CurvePanel(metric_label(name).capitalize(), (name,), 1.15) for name in other_metrics(runs)]
    place = next(index for index, panel in enumerate(first) if panel.stepped)
    return (*first[:place], *others, *first[place:])


def draw_curves(runs: Sequence[Series]) -> Picture:
    """Draw runs by epoch and by samples seen, side by side; a band spans the seeds of a mean curve."""
    names = ", ".join(run.name for run in runs)
    stages = "; ".join(dict.fromkeys(" → ".join(str(stage["name"]) for stage in run.stages) for run in runs))
    description = f"Test accuracy, loss, learning rate, batch size and noise scale of {names}, in stages {stages}"
    panels = [(f"{description}, {_AXIS_WORDS[axis]}", partial(_draw_figure, runs, (axis,))) for axis in AXES]
    return make_picture("curves", description, panels, partial(_draw_figure, runs, AXES))


def write_curves(workdir: Path) -> None:
    """Write the curves of one run into its folder, as `curves.png` and `curves.svg`.

    Raises:
      SaveError: if one of them cannot be written.
    """
    png, svg = render_files(partial(_draw_figure, group_series(read_runs([workdir])), AXES))
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
    short = max(len(str(handle.get_label())) for handle in handles) <= _SHORT_LABEL
    legend_columns = len(axes) * (2 if short else 1)
    panels = curve_panels(runs)
    figure, grid = _empty_figure(len(runs), panels, len(axes), math.ceil(len(handles) / legend_columns))
    for column, axis in enumerate(axes):
        _draw_strip(grid[0, column], runs, axis, theme)
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
    def label(run: Series) -> str:
        scores = [row["top1"] for row in run.rows if row["top1"] is not None]
        mean = "mean " if run.lowest else ""
        score = f", {mean}top-1 {100 * scores[-1]:.2f} %" if scores else ""
        name = run.name if len(run.name) <= 36 else f"{run.name[:35]}…"
        return f"{name}{score}{'' if run.finished else ' so far'}"

    lines = [Line2D([], [], **_line_style(index, theme), label=label(run)) for index, run in enumerate(runs)]
    band = Patch(color=theme.foreground, alpha=_BAND_ALPHA, linewidth=0, label="lowest to highest of the seeds")
    return [*lines, *([band] if any(run.lowest for run in runs) else [])]


def _line_style(index: int, theme: Theme) -> dict[str, Any]:
    """Colour and dashes of a run; every combination is used once before any is repeated."""
    count = len(theme.palette)
    dashes = _DASHES[index // count % len(_DASHES)]
    return {"color": theme.palette[index % count], "linestyle": dashes, "linewidth": 1.6}


def _draw_strip(axes: Axes, runs: Sequence[Series], axis: Axis, theme: Theme) -> None:
    length = max(stage_boundaries(run, axis)[-1] for run in runs)
    for index, run in enumerate(runs):
        color = _line_style(index, theme)["color"]
        axes.barh(index, stage_boundaries(run, axis)[-1], 0.8, color=color, alpha=0.35, linewidth=0)
        axes.barh(index, epoch_ends(run, axis)[-1], 0.8, color=color, linewidth=0)
        for stage, (left, right) in zip(run.stages, itertools.pairwise(stage_boundaries(run, axis)), strict=True):
            axes.plot([right, right], [index - 0.4, index + 0.4], color=theme.background, linewidth=1.5)
            name = _fitting_name(stage, (right - left) / length)
            middle = (left + right) / 2
            foreground = contrasting_color(color) if middle <= epoch_ends(run, axis)[-1] else theme.foreground
            axes.text(middle, index, name, ha="center", va="center_baseline", color=foreground, weight="bold")
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_axis_off()


def _fitting_name(stage: Row, share: float) -> str:
    """The longest label of a stage that fits into its share of the strip: `A · 20 %`, `A`, or none."""
    name, fraction = str(stage["name"]), f"{100 * stage['fraction']:.3g} %"
    names = (name if "%" in name else f"{name} · {fraction}", name, "")
    return next(each for each in names if len(each) * 0.021 < share)


def _draw_panel(axes: Axes, panel: CurvePanel, runs: Sequence[Series], axis: Axis, theme: Theme) -> None:
    axes.set_title(panel.label, loc="left", fontsize=9, pad=4)
    axes.grid(axis="y", color=theme.muted, linewidth=0.5, alpha=0.6)
    axes.tick_params(length=2.5)
    _draw_boundaries(axes, runs, axis, theme)
    for index, run in enumerate(runs):
        style = _line_style(index, theme)
        if panel.stepped:
            # Schedules often coincide: wider lines below remain visible as a rim.
            style["linewidth"] += 0.9 * min(len(runs) - 1 - index, 3)
        for field in panel.fields:
            _draw_line(axes, panel, field, run, axis, style | (_TRAINING_STYLE if field == "train_loss" else {}))
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


def _draw_line(axes: Axes, panel: CurvePanel, field: str, run: Series, axis: Axis, style: dict[str, Any]) -> None:
    ends = epoch_ends(run, axis)
    values: list[Any] = [row.get(field) for row in run.rows]
    if panel.stepped:
        axes.step([0, *ends], [values[0], *values], where="pre", **style)
        return
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


def _scale_y(axes: Axes, panel: CurvePanel, runs: Iterable[Series]) -> None:
    rows = [row for run in runs for row in (*run.rows, *run.lowest, *run.highest)]
    values = [row[field] for row in rows for field in panel.fields if row.get(field) is not None]
    if values and min(values) > 0 and max(values) / min(values) > 12:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
    elif panel.stepped:
        axes.set_ylim(0, 1.15 * max(values))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    elif panel.scale == 100:
        axes.set_ylim(*_accuracy_limits(values))


def _accuracy_limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits in percent of an axis that shows these fractions.

    The first epochs of a run often span a larger range than all the others; the axis then starts above them. It covers
    at least five points, so that noise does not look like progress.
    """
    ordered = sorted(values) or [0.0, 1.0]
    lowest, early, highest = ordered[0], ordered[len(ordered) // 25], ordered[-1]
    bottom = early if highest - early < 0.5 * (highest - lowest) else lowest
    bottom = min(bottom, highest - 0.05)
    margin = 0.05 * (highest - bottom)
    return 100 * (bottom - margin), 100 * min(highest + margin, 1.004)


def _label_x(axes: Axes, runs: Sequence[Series], axis: Axis) -> None:
    axes.set_xlim(0, max(stage_boundaries(run, axis)[-1] for run in runs))
    axes.set_xlabel(_AXIS_LABELS[axis])
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
