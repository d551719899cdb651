"""The paired differences of a comparison: a figure, the table and how its numbers are made."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepwise_jax.report.blocks import Block, Folded, Heading, Paragraph, Picture, Table
from stepwise_jax.report.comparisons.arms import ArmStyles, styled_table
from stepwise_jax.report.figures import WIDTH, Theme, make_picture, wrapped
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_table import COMPARISON_HEADER, FinishedRuns, comparison_rows
from stepwise_jax.studies.statistics.paired import Difference

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

_SEEDS, _SAMPLES = (COMPARISON_HEADER.index(name) for name in ("seeds", "samples planned"))

_ANSWERS, _TESTS = slice(1, _SEEDS + 1), slice(_SEEDS + 1, _SAMPLES)
"""The columns of the answer, and those of all tests; what follows is in the section about cost."""

_MARKERS = {"better": "D", "worse": "D", "equivalent": "s", "not decided": "o"}

_NAME_WIDTH = 92
"""Characters in a line above an interval."""


def difference_blocks(
    compared: Comparison, finished: FinishedRuns, differences: Sequence[Difference], styles: ArmStyles
) -> list[Block]:
    """Return the section about the paired differences."""
    reference = styles[compared.arms[0].name].label
    rows = comparison_rows(compared, finished, differences)
    answers, tests = (Table(*_columns(rows, names)) for names in (_ANSWERS, _TESTS))
    return [
        Heading("Paired differences"),
        Paragraph(
            f"Right of 0, {reference} is ahead; look at whether a line crosses 0, and whether it stays within the "
            "dotted margin."
        ),
        *([_forest(reference, differences, styles)] if differences else []),
        styled_table(answers, styles, titles=True),
        Folded("All tests, and how these numbers are made", (styled_table(tests, styles), Paragraph(_METHOD_NOTE))),
    ]


def _columns(rows: Sequence[tuple[str, ...]], places: slice) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The header and the rows of some columns of the comparison's table, after the names."""
    header, *chosen = ((row[0], *row[places]) for row in (COMPARISON_HEADER, *rows))
    return header, tuple(chosen)


def _forest(reference: str, differences: Sequence[Difference], styles: ArmStyles) -> Picture:
    description = f"Top-1 of {reference} minus each other strategy's: every seed, the mean and its 95 % interval"
    draw = partial(_draw_forest, reference, differences, styles)
    return make_picture("differences", description, draw)


def _draw_forest(reference: str, differences: Sequence[Difference], styles: ArmStyles, theme: Theme) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.2 + 0.52 * len(differences)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=theme.foreground, linewidth=0.8)
    for margin in {100 * each.margin for each in differences}:
        axes.axvline(margin, color=theme.muted, linewidth=1, linestyle=":")
        axes.axvline(-margin, color=theme.muted, linewidth=1, linestyle=":")
    for index, each in enumerate(differences):
        style = styles[each.other]
        _draw_difference(axes, index, each, theme.palette[style.color % len(theme.palette)], theme)
        _write_name(axes, index, wrapped(": ".join(filter(None, (style.label, style.title))), _NAME_WIDTH), theme)
    axes.set(yticks=[], ylim=(len(differences) - 0.5, -0.9))
    axes.set_xlabel(f"points of top-1 by which {reference} is ahead")
    axes.grid(axis="x", color=theme.muted, linewidth=0.5, alpha=0.6)
    legend = (
        "line: 95 % over seeds; grey: 95 % over images; ticks: seeds; dotted: the margin\n"
        "diamond: better or worse; square: equivalent; open circle: not decided"
    )
    figure.suptitle(legend, x=0.01, ha="left", fontsize=8)
    return figure


def _write_name(axes: Axes, index: int, name: str, theme: Theme) -> None:
    """Write the name above its interval: a column of names would take the width of a narrow screen."""
    behind = {"facecolor": theme.background, "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
    place = axes.get_yaxis_transform()
    axes.text(0, index - 0.27, name, transform=place, fontsize=7.5, va="bottom", bbox=behind)


def _draw_difference(axes: Axes, index: int, difference: Difference, color: str, theme: Theme) -> None:
    grey: dict[str, Any] = {"color": theme.muted, "linewidth": 8, "solid_capstyle": "butt", "zorder": 1}
    line: dict[str, Any] = {"color": color, "linewidth": 1.8, "zorder": 2}
    for interval, style in ((difference.image_interval, grey), (difference.interval, line)):
        if interval:
            axes.plot([100 * interval.low, 100 * interval.high], [index, index], **style)
    seeds = [100 * value for value in difference.by_seed.values()]
    axes.plot(seeds, np.full(len(seeds), index + 0.24), "|", color=theme.foreground, markersize=6, alpha=0.7)
    face = theme.background if difference.verdict == "not decided" else color
    marker = _MARKERS[difference.verdict]
    axes.plot(100 * difference.mean, index, marker, color=color, markerfacecolor=face, markersize=6, zorder=3)
