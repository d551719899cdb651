"""Figures for a page: one style, light and dark, and the same bytes for the same figure."""

import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from stepwise_jax.report.blocks import Picture, PicturePanel


@dataclass(frozen=True)
class Theme:
    """Colours of a figure; colour-blind readers can distinguish those of the palette (after Okabe and Ito)."""

    background: str
    foreground: str
    muted: str
    band: str
    palette: tuple[str, ...]


LIGHT = Theme(
    "#ffffff",
    "#24292f",
    "#d0d7de",
    "#f3f5f8",
    ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7a1f4b", "#5e6670"),
)

DARK = Theme(
    "#15191f",
    "#e6edf3",
    "#3d444d",
    "#1c222a",
    ("#56b4e9", "#f0883e", "#2fbf95", "#e49ac6", "#f0e442", "#7d8fff", "#cf6a93", "#a3adb8"),
)

Format = Literal["png", "svg"]

DrawFunction = Callable[[Theme], Figure]

WIDTH = 5.2
"""Inches; text is as large as the page's on a wide screen, and still readable on a phone."""


def contrasting_color(color: str) -> str:
    """Return black or white, whichever contrasts more with this colour (by relative luminance, WCAG 2)."""
    linear = [((each + 0.055) / 1.055) ** 2.4 if each > 0.04045 else each / 12.92 for each in to_rgb(color)]
    luminance = sum(share * each for share, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#111111" if luminance > 0.18 else "#ffffff"


def wrapped(label: str, width: int = 30) -> str:
    """Return a label in lines of at most this many characters; only longer words are broken."""
    return textwrap.fill(label, width) or label


def make_picture(
    name: str, description: str, panels: Sequence[tuple[str, DrawFunction]], whole: DrawFunction | None = None
) -> Picture:
    """Make a picture of one or several figures side by side.

    Args:
      name: the stem of its file names.
      description: the content of the picture, in words.
      panels: pairs of a description and a function that draws a figure.
      whole: draws all panels in one figure, for the files; by default the first panel.
    """
    png, svg = render_files(whole or panels[0][1])
    # The file of a single panel is its light figure.
    light = [svg] if whole is None else [render(draw, "svg", LIGHT) for _, draw in panels]
    drawn = tuple(
        PicturePanel(words, own, render(draw, "svg", DARK)) for (words, draw), own in zip(panels, light, strict=True)
    )
    return Picture(name, description, drawn, png, svg)


def render_files(draw: DrawFunction) -> tuple[bytes, bytes]:
    """Return the contents of a PNG and of an SVG file of a figure."""
    svg, png = _render(draw, ("svg", "png"), LIGHT)
    return png, svg


def render(draw: DrawFunction, file_format: Format, theme: Theme) -> bytes:
    """Return the contents of a file of a figure."""
    return _render(draw, (file_format,), theme)[0]


def _render(draw: DrawFunction, formats: Sequence[Format], theme: Theme) -> list[bytes]:
    with matplotlib.style.context(["default", _settings(theme)]), warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; the text of the page shows them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = draw(theme)
        FigureCanvasAgg(figure)
        return [_save(figure, each, theme, laid_out=bool(index)) for index, each in enumerate(formats)]


def _save(figure: Figure, file_format: Format, theme: Theme, laid_out: bool) -> bytes:
    if laid_out:
        # To lay out a figure, matplotlib draws it once more.
        figure.set_layout_engine("none")
    # No date and no version: the same figure must give the same bytes.
    metadata = {"Date": None, "Creator": None} if file_format == "svg" else {"Software": None}
    file = io.BytesIO()
    figure.savefig(file, format=file_format, dpi=160, facecolor=theme.background, metadata=metadata)
    return file.getvalue()


def _settings(theme: Theme) -> dict[str, Any]:
    return {
        # Without a salt, matplotlib gives the parts of an SVG random names.
        "svg.hashsalt": "stepwise-jax",
        # A dollar sign in a name does not start a formula.
        "text.parse_math": False,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.foreground,
        "axes.facecolor": "none",
        # Where a title stands by itself; matplotlib would measure every tick to place it.
        "axes.titley": 1.0,
        "text.color": theme.foreground,
        "xtick.color": theme.foreground,
        "ytick.color": theme.foreground,
    }
