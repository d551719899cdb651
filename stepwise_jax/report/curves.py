"""A picture of runs: accuracy, loss, rate, batch and noise scale, by epoch and by samples seen.

A strip along the top shows the stages of each run; the same records draw the same bytes.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from stepwise_jax.errors import SaveError
from stepwise_jax.report.blocks import Picture
from stepwise_jax.report.figures import WIDTH, Theme, draw_files, ink_on, make_picture
from stepwise_jax.report.series import Series, group_series
from stepwise_jax.workdir.files import atomic_write
from stepwise_jax.workdir.records import Row
from stepwise_jax.workdir.runs import read_runs

Axis = Literal["epoch", "samples"]

AXES: tuple[Axis, ...] = ("epoch", "samples")

_AXIS_WORDS: dict[Axis, str] = {"epoch": "by epoch", "samples": "by samples seen"}

_AXIS_LABELS = {"epoch": "epochs", "samples": "samples seen (images)"}


@dataclass(frozen=True)
class Panel:
    """One quantity of the records."""

    label: str
    fields: tuple[str, ...]
    height: float
    stepped: bool = False
    """Constant during an epoch, rather than measured at its end."""
    scale: float = 1.0


PANELS = (
    Panel("Test accuracy, top-1 (%)", ("top1",), 2.8, scale=100),
    Panel("Test accuracy, top-5 (%)", ("top5",), 1.6, scale=100),
    Panel("Cross-entropy loss (nats)", ("test_loss", "train_loss"), 1.8),
    Panel("Learning rate", ("learning_rate",), 1.15, stepped=True),
    Panel("Batch size (images)", ("batch_size",), 1.15, stepped=True),
    Panel("Noise scale (learning rate × examples / batch size)", ("noise_scale",), 1.15, stepped=True),
)

_TRAINING = {"linewidth": 0.9, "alpha": 0.65}

_BAND = 0.18

# Characters of which two labels fit beside each other.
_SHORT_LABEL = 31

_DASHES = ("-", "--", "-.", ":")

# Inches: a panel of height 1, and what is left free around and between.
_UNIT = 0.72

_LEFT, _RIGHT, _BELOW, _GAP, _BETWEEN = 0.62, 0.15, 0.46, 0.3, 0.3


def draw_curves(runs: Sequence[Series]) -> Picture:
    """The runs by epoch and by samples seen, side by side; a band spans the seeds of a line that stands for several."""
    names = ", ".join(run.name for run in runs)
    stages = "; ".join(dict.fromkeys(" → ".join(str(stage["name"]) for stage in run.stages) for run in runs))
    described = f"Test accuracy, loss, learning rate, batch size and noise scale of {names}, in stages {stages}"
    panels = [(f"{described}, {_AXIS_WORDS[axis]}", partial(_figure, runs, (axis,))) for axis in AXES]
    return make_picture("curves", described, panels, partial(_figure, runs, AXES))


def write_curves(workdir: Path) -> None:
    """Draws one run into its own folder, as `curves.png` and `curves.svg`.

    Raises:
      UnsavedError: if one of them cannot be written.
    """
    png, svg = draw_files(partial(_figure, group_series(read_runs([workdir])), AXES))
    _write(workdir / "curves.png", png)
    _write(workdir / "curves.svg", svg)


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise SaveError(
            f"{path} cannot be written ({error.strerror}): training is done and saved; the same command draws "
            "its curves once they can be"
        ) from error


def _figure(runs: Sequence[Series], axes: Sequence[Axis], theme: Theme) -> Figure:
    handles = _legend(runs, theme)
    beside = len(axes) * (2 if max(len(str(handle.get_label())) for handle in handles) <= _SHORT_LABEL else 1)
    figure, grid = _empty_figure(len(runs), len(axes), -(-len(handles) // beside))
    for column, axis in enumerate(axes):
        _draw_strip(grid[0, column], runs, axis, theme)
        for row, panel in enumerate(PANELS, start=1):
            _draw_panel(grid[row, column], panel, runs, axis, theme)
        _label_x(grid[-1, column], runs, axis)
    for row, panel in enumerate(PANELS, start=1):
        _scale_y(grid[row, 0], panel, runs)
    figure.legend(handles=handles, loc="upper left", ncols=beside, frameon=False)
    return figure


def _empty_figure(runs: int, columns: int, lines: int) -> tuple[Figure, np.ndarray]:
    """A figure with so many lines of a legend, and its axes [1 + panels, columns]; the first row is the strip."""
    # Every size is in inches and known beforehand: matplotlib's own layout would double the time.
    heights = [0.3 * runs, *(_UNIT * panel.height for panel in PANELS)]
    above = 0.2 + 0.18 * lines
    width, height = WIDTH * columns, above + sum(heights) + _GAP * len(PANELS) + _BELOW
    figure = Figure(figsize=(width, height))
    sides = {"left": _LEFT / width, "right": 1 - _RIGHT / width, "bottom": _BELOW / height, "top": 1 - above / height}
    between = columns * _BETWEEN / (width - _LEFT - _RIGHT - (columns - 1) * _BETWEEN)
    ratios = {"height_ratios": heights, "hspace": _GAP * len(heights) / sum(heights), "wspace": between}
    grid = figure.subplots(
        len(heights), columns, squeeze=False, sharex="col", sharey="row", gridspec_kw={**sides, **ratios}
    )
    return figure, grid


def _legend(runs: Sequence[Series], theme: Theme) -> list[Line2D | Patch]:
    def label(run: Series) -> str:
        scores = [row["top1"] for row in run.rows if row["top1"] is not None]
        mean = "mean " if run.lowest else ""
        reached = f", {mean}top-1 {100 * scores[-1]:.2f} %" if scores else ""
        name = run.name if len(run.name) <= 36 else f"{run.name[:35]}…"
        return f"{name}{reached}{'' if run.finished else ' so far'}"

    lines = [Line2D([], [], **_line(place, theme), label=label(run)) for place, run in enumerate(runs)]
    band = Patch(color=theme.ink, alpha=_BAND, linewidth=0, label="lowest to highest of the seeds")
    return [*lines, *([band] if any(run.lowest for run in runs) else [])]


def _line(place: int, theme: Theme) -> dict[str, Any]:
    """Colour and dashes of a run, different for as many runs as there are pairs of the two."""
    count = len(theme.runs)
    return {"color": theme.runs[place % count], "linestyle": _DASHES[place // count % len(_DASHES)], "linewidth": 1.6}


def boundaries(run: Series, axis: Axis) -> list[float]:
    """Where the stages begin, and the end of the last one, in planned epochs or examples."""
    sizes = [stage["epochs"] * (1 if axis == "epoch" else fed_per_epoch(stage)) for stage in run.stages]
    return [0, *itertools.accumulate(sizes)]


def fed_per_epoch(stage: Row) -> int:
    """Examples that an epoch feeds: whole batches, the rest is dropped."""
    return stage["examples"] // stage["batch_size"] * stage["batch_size"]


def places(run: Series, axis: Axis) -> list[float]:
    """Where on an axis each of the run's recorded epochs ends."""
    if axis == "samples":
        return [row["examples_seen"] for row in run.rows]
    begins = boundaries(run, "epoch")
    return [begins[row["stage"] - 1] + row["epoch"] for row in run.rows]


def _draw_strip(axes: Axes, runs: Sequence[Series], axis: Axis, theme: Theme) -> None:
    whole = max(boundaries(run, axis)[-1] for run in runs)
    for place, run in enumerate(runs):
        color = _line(place, theme)["color"]
        axes.barh(place, boundaries(run, axis)[-1], 0.8, color=color, alpha=0.35, linewidth=0)
        axes.barh(place, places(run, axis)[-1], 0.8, color=color, linewidth=0)
        for stage, (left, right) in zip(run.stages, itertools.pairwise(boundaries(run, axis)), strict=True):
            axes.plot([right, right], [place - 0.4, place + 0.4], color=theme.background, linewidth=1.5)
            name = _fitting_name(stage, (right - left) / whole)
            middle = (left + right) / 2
            ink = ink_on(color) if middle <= places(run, axis)[-1] else theme.ink
            axes.text(middle, place, name, ha="center", va="center_baseline", color=ink, weight="bold")
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_axis_off()


def _fitting_name(stage: Row, share: float) -> str:
    """The longest name of a stage that fits into its share of the strip's width: `A · 20 %`, `A`, or none."""
    name, fraction = str(stage["name"]), f"{100 * stage['fraction']:.3g} %"
    names = (name if "%" in name else f"{name} · {fraction}", name, "")
    return next(each for each in names if len(each) * 0.021 < share)


def _draw_panel(axes: Axes, panel: Panel, runs: Sequence[Series], axis: Axis, theme: Theme) -> None:
    axes.set_title(panel.label, loc="left", fontsize=9, pad=4)
    axes.grid(axis="y", color=theme.faint, linewidth=0.5, alpha=0.6)
    axes.tick_params(length=2.5)
    _draw_boundaries(axes, runs, axis, theme)
    for place, run in enumerate(runs):
        style = _line(place, theme)
        if panel.stepped:
            # Schedules coincide more often than not: the ones below show as a rim.
            style["linewidth"] += 0.9 * min(len(runs) - 1 - place, 3)
        for field in panel.fields:
            _draw_line(axes, panel, field, run, axis, style | (_TRAINING if field == "train_loss" else {}))
    if len(panel.fields) > 1:
        handles = [Line2D([], [], **{"color": theme.ink, "linewidth": 1.6, **style}) for style in ({}, _TRAINING)]
        # Beside the panel's title: inside it would lie over some run's lines.
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
    edges = {tuple(boundaries(run, axis)) for run in runs}
    if len(edges) == 1:
        for left, right in itertools.islice(itertools.pairwise(*edges), 0, None, 2):
            axes.axvspan(left, right, color=theme.band, linewidth=0, zorder=0)
    else:
        for edge in sorted({edge for each in edges for edge in each[1:-1]}):
            axes.axvline(edge, color=theme.faint, linewidth=0.9, zorder=0)


def _draw_line(axes: Axes, panel: Panel, field: str, run: Series, axis: Axis, style: dict[str, Any]) -> None:
    ends = places(run, axis)
    values = [row[field] for row in run.rows]
    if panel.stepped:
        axes.step([0, *ends], [values[0], *values], where="pre", **style)
        return
    points = [(x, panel.scale * y) for x, y in zip(ends, values, strict=True) if y is not None]
    if run.lowest and field != "train_loss":
        _draw_band(axes, panel, field, run, ends, style)
    # A single point makes no line, and few of them should be seen.
    marker = {"marker": "o", "markersize": 2.5} if len(points) <= 12 else {}
    axes.plot([x for x, _ in points], [y for _, y in points], **style, **marker)


def _draw_band(axes: Axes, panel: Panel, field: str, run: Series, ends: Sequence[float], style: dict[str, Any]) -> None:
    """From the lowest to the highest of the seeds."""
    spans = [
        (x, panel.scale * low[field], panel.scale * high[field])
        for x, low, high in zip(ends, run.lowest, run.highest, strict=True)
        if low[field] is not None
    ]
    places, below, above = zip(*spans, strict=True) if spans else ((), (), ())
    axes.fill_between(places, below, above, color=style["color"], alpha=_BAND, linewidth=0)


def _scale_y(axes: Axes, panel: Panel, runs: Iterable[Series]) -> None:
    rows = [row for run in runs for row in (*run.rows, *run.lowest, *run.highest)]
    values = [row[field] for row in rows for field in panel.fields if row[field] is not None]
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
    """Limits in per cent of an axis that shows these fractions.

    The first epochs of a run often span more than all that follow: where they do, the line comes in from below.
    Less than five points are not spread over a whole axis, so that noise does not look like news.
    """
    ordered = sorted(values) or [0.0, 1.0]
    lowest, settled, highest = ordered[0], ordered[len(ordered) // 25], ordered[-1]
    bottom = settled if highest - settled < 0.5 * (highest - lowest) else lowest
    bottom = min(bottom, highest - 0.05)
    margin = 0.05 * (highest - bottom)
    return 100 * (bottom - margin), 100 * min(highest + margin, 1.004)


def _label_x(axes: Axes, runs: Sequence[Series], axis: Axis) -> None:
    axes.set_xlim(0, max(boundaries(run, axis)[-1] for run in runs))
    axes.set_xlabel(_AXIS_LABELS[axis])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_short(axis)))


def _short(axis: Axis) -> Callable[[float, object], str]:
    """Tick labels: 20, 40, ...; and for samples 5 k, 1.5 M."""

    def label(value: float, _: object) -> str:
        for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
            if axis == "samples" and value >= size:
                return f"{value / size:g}{unit}"
        return f"{value:g}"

    return label
