"""A figure is drawn once, and its dark form is what drawing it for a dark page would give."""

import io
import re
from functools import partial

import numpy as np
import pytest
from made_runs import SECONDS, make_run
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from stepwise_jax.report.charts.seconds import _seconds_figure, draw_seconds
from stepwise_jax.report.figures import DARK, DARK_COLORS, LIGHT, contrasting_color, contrasting_ink, in_dark, render
from stepwise_jax.report.noise_section import _noise_figure
from stepwise_jax.workdir.runs import read_runs


def without_names(svg: bytes) -> str:
    """The drawing with its generated names, which depend on colours, by number."""
    names: dict[str, str] = {}
    return re.sub(r"\b[mp][0-9a-f]{10}\b", lambda found: names.setdefault(found[0], f"n{len(names)}"), svg.decode())


def test_the_dark_form_is_the_figure_drawn_for_a_dark_page(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "run")])
    for draw in (partial(_noise_figure, run, run.records.epochs), partial(_seconds_figure, {"a run": SECONDS})):
        light, dark = (render(draw, "svg", theme) for theme in (LIGHT, DARK))
        assert without_names(in_dark(light)) == without_names(dark) != without_names(light)


def test_a_dark_colour_that_is_also_a_light_one_stays():
    assert LIGHT.palette[5] == DARK.palette[0]
    assert in_dark(b"#0072b2 #56b4e9 #123456") == f"{DARK.palette[0]} {DARK.palette[5]} #123456".encode()


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, by WCAG 2."""

    def luminance(color: str) -> float:
        parts = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_have_contrast(theme):
    assert contrast(theme.foreground, theme.background) >= 7
    assert all(contrast(color, theme.background) >= 2.3 for color in theme.palette)
    assert all(contrast(contrasting_color(color), color) >= 4.5 for color in theme.palette)


@pytest.mark.parametrize("share", np.linspace(0, 1, 21))
def test_text_on_a_share_has_contrast_in_both_forms(share):
    light, dark = (
        to_hex((1 - share) * np.array(to_rgb(theme.band)) + share * np.array(to_rgb(theme.palette[0])))
        for theme in (LIGHT, DARK)
    )
    ink = contrasting_ink(light, dark)
    assert contrast(ink, light) >= 3.5
    assert contrast(DARK_COLORS.get(ink, ink), dark) >= 3.5


def test_text_on_the_colours_of_curves_has_contrast_in_both_forms():
    for light, dark in zip(LIGHT.palette, DARK.palette, strict=True):
        ink = contrasting_ink(light, dark)
        assert min(contrast(ink, light), contrast(DARK_COLORS.get(ink, ink), dark)) >= 4.3


def test_the_same_figure_has_the_same_files():
    drawn, again = (draw_seconds("seconds", {"a run": SECONDS}) for _ in range(2))
    assert drawn == again
    with Image.open(io.BytesIO(drawn.png)) as image:
        # 160 pixels for each of 5.2 inches.
        assert (image.format, image.width) == ("PNG", 832)
