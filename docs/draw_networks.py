"""Draw networks.svg, the residual of the four blocks side by side.

Usage: python docs/draw_networks.py
"""

import io
import pathlib

from adapt_pictures import adapt
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

SCALE = 4
REDUCE, MIDDLE, EXPAND = "#d6e4f0", "#f6d7b0", "#d6e4f0"
INK, EDGE = "#333333", "#555555"
DARK = {INK: "#d8dee4", EDGE: "#9aa4ae", REDUCE: "#1f3d57", MIDDLE: "#5c3f16", "#ffffff": "none", "#000000": "#d8dee4"}
"""Colours on a dark page."""


def box(axes: Axes, x: float, y: float, width: float, text: str, colour: str) -> None:
    """A layer centred at (x, y)."""
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.28), width, 0.56, boxstyle="round,pad=0.02,rounding_size=0.1", fc=colour, ec=EDGE
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=8)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **style: object) -> None:
    """An arrow along the flow of data."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": INK, **style})


def frame(axes: Axes, title: str) -> None:
    """The common parts of all four: 1x1, 1x1, the shortcut and the sum."""
    box(axes, 2, 5.4, 3.6, "1x1", REDUCE)
    box(axes, 2, 1.2, 3.6, "1x1", EXPAND)
    axes.text(2, 0.25, "+", ha="center", va="center", fontsize=13, bbox={"boxstyle": "circle", "fc": "white"})
    arrow(axes, (2, 6.4), (2, 5.7))
    arrow(axes, (2, 0.92), (2, 0.52))
    axes.plot([2, 4.3, 4.3], [6.2, 6.2, 0.25], color=INK, linewidth=1, linestyle="--")
    arrow(axes, (4.3, 0.25), (2.25, 0.25), linestyle="--")
    axes.set_title(title, fontsize=10)
    axes.set(xlim=(-0.2, 4.6), ylim=(-0.2, 6.6))
    axes.axis("off")


def one_convolution(axes: Axes, text: str) -> None:
    """The middle of ResNet and ResNeXt."""
    box(axes, 2, 3.3, 3.6, text, MIDDLE)
    arrow(axes, (2, 5.1), (2, 3.6))
    arrow(axes, (2, 3.0), (2, 1.5))


def chain(axes: Axes, text: str) -> None:
    """The middle of Res2Net and Res2NeXt: a chain over the pieces, the last of which passes unchanged."""
    centres = [0.65 + 0.9 * index for index in range(SCALE)]
    heights = [4.0, 3.3, 2.6]
    for index, x in enumerate(centres):
        if index == SCALE - 1:
            arrow(axes, (x, 5.1), (x, 1.5))
            continue
        box(axes, x, heights[index], 0.72, text, MIDDLE)
        arrow(axes, (x, 5.1), (x, heights[index] + 0.3))
        arrow(axes, (x, heights[index] - 0.3), (x, 1.5))
        if index > 0:
            arrow(axes, (centres[index - 1], heights[index]), (x - 0.38, heights[index]))


def main() -> None:
    """Draw the four and write the file."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 4))
    titles = ("ResNet", "ResNeXt (cardinality C)", "Res2Net (scale 4)", "Res2NeXt (scale 4, cardinality C)")
    for panel, title in zip(axes, titles, strict=True):
        frame(panel, title)
    one_convolution(axes[0], "3x3")
    one_convolution(axes[1], "3x3 in C groups")
    chain(axes[2], "3x3")
    chain(axes[3], "3x3\nC gr.")
    figure.tight_layout()
    plt.rcParams["svg.hashsalt"] = "networks"  # the same file from every run
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    pathlib.Path(__file__).with_name("networks.svg").write_text(adapt(written.getvalue(), DARK, INK))


if __name__ == "__main__":
    main()
