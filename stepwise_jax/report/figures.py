"""Figures for a page: one style, light and dark, and the same bytes for the same figure."""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from stepwise_jax.report.blocks import Picture


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

DARK_COLORS: Mapping[str, str] = dict(
    zip(
        (LIGHT.background, LIGHT.foreground, LIGHT.muted, LIGHT.band, *LIGHT.palette),
        (DARK.background, DARK.foreground, DARK.muted, DARK.band, *DARK.palette),
        strict=True,
    )
)
"""The dark colour for each light one."""

Format = Literal["png", "svg"]

DrawFunction = Callable[[Theme], Figure]

_BLACK, _WHITE = "#111111", "#fefefe"
"""Inks that are the same in the dark form."""

_DPI = 160

WIDTH = 5.2
"""Inches; text is as large as the page's on a wide screen, and still readable on a phone."""


def contrasting_color(color: str) -> str:
    """Return black or white, whichever contrasts more with this colour (by relative luminance, WCAG 2)."""
    linear = [((each + 0.055) / 1.055) ** 2.4 if each > 0.04045 else each / 12.92 for each in to_rgb(color)]
    luminance = sum(share * each for share, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return _BLACK if luminance > 0.18 else _WHITE


def contrasting_ink(light: str, dark: str) -> str:
    """Return the colour for a text of a light figure that contrasts with its background in the dark form as well.

    Args:
      light: the background in the light figure.
      dark: the background in its dark form.
    """
    inks = contrasting_color(light), contrasting_color(dark)
    return {(_BLACK, _WHITE): LIGHT.foreground, (_WHITE, _BLACK): LIGHT.background}.get(inks, inks[0])


def wrapped(label: str, width: int = 30) -> str:
    """Return a label in lines of at most this many characters; only longer words are broken."""
    return textwrap.fill(label, width) or label


def make_picture(name: str, description: str, draw: DrawFunction) -> Picture:
    """Make a picture.

    Args:
      name: the stem of its file names.
      description: the content of the picture, in words.
      draw: draws it.
    """
    png, svg = render_files(draw)
    return Picture(name, description, png, svg)


def in_dark(svg: bytes) -> bytes:
    """Return the dark form of a light figure: drawing it anew would take much longer."""

    def dark_color(found: re.Match[bytes]) -> bytes:
        color = found[0].decode()
        return DARK_COLORS.get(color, color).encode()

    return re.sub(rb"#[0-9a-f]{6}\b", dark_color, svg)


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
        figure.set(facecolor=theme.background)
        return [_save(figure, each, laid_out=bool(index)) for index, each in enumerate(formats)]


def _save(figure: Figure, file_format: Format, laid_out: bool) -> bytes:
    if laid_out:
        figure.set_layout_engine("none")
    file = io.BytesIO()
    # `savefig` would draw the figure once more for its layout, which drawing makes anyway.
    # No date and no version: the same figure must give the same bytes.
    if file_format == "svg":
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    else:
        figure.set(dpi=_DPI)
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
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
