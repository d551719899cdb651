"""Pictures for a page: one look, light and dark, and the same bytes for the same figure."""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from stepwise_jax.report.blocks import Panel, Picture


@dataclass(frozen=True)
class Theme:
    """Colours of a picture; those of the runs can be told apart by colour-blind readers (after Okabe and Ito)."""

    background: str
    ink: str
    faint: str
    band: str
    runs: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#24292f", "#d0d7de", "#f3f5f8", ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9")
)

DARK = Theme(
    "#15191f", "#e6edf3", "#3d444d", "#1c222a", ("#56b4e9", "#f0883e", "#2fbf95", "#e49ac6", "#f0e442", "#7d8fff")
)

Draw = Callable[[Theme], Figure]

WIDTH = 5.2
"""Inches: text is as large as the page's on a wide screen, and can still be read on a telephone."""


def ink_on(color: str) -> str:
    """Black or white, whichever stands out from this colour (its relative luminance, WCAG 2)."""
    linear = [((each + 0.055) / 1.055) ** 2.4 if each > 0.04045 else each / 12.92 for each in to_rgb(color)]
    luminance = sum(share * each for share, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#111111" if luminance > 0.18 else "#ffffff"


def make_picture(name: str, description: str, panels: Sequence[tuple[str, Draw]], whole: Draw | None = None) -> Picture:
    """A picture of one figure or several side by side.

    Args:
      name: of its files.
      description: what it shows, in words.
      panels: a description and a figure each.
      whole: all of them in one figure, for the files; by default the only panel.
    """
    drawn = tuple(Panel(words, _bytes(draw, "svg", LIGHT), _bytes(draw, "svg", DARK)) for words, draw in panels)
    return Picture(name, description, drawn, *draw_files(whole or panels[0][1]))


def draw_files(draw: Draw) -> tuple[bytes, bytes]:
    """A figure as the contents of a PNG and of an SVG file."""
    return _bytes(draw, "png", LIGHT), _bytes(draw, "svg", LIGHT)


def _bytes(draw: Draw, form: Literal["png", "svg"], theme: Theme) -> bytes:
    settings = {
        # Without a salt, matplotlib names the parts of an SVG at random.
        "svg.hashsalt": "stepwise-jax",
        # A dollar in a name is no formula.
        "text.parse_math": False,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.ink,
        "axes.facecolor": "none",
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
    }
    undated = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    file = io.BytesIO()
    with matplotlib.style.context(["default", settings]), warnings.catch_warnings():
        # Names in scripts that the font lacks are drawn as boxes; the page's text has them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = draw(theme)
        FigureCanvasAgg(figure)
        figure.savefig(file, format=form, dpi=160, facecolor=theme.background, metadata=undated)
    return file.getvalue()
