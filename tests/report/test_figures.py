"""A figure is drawn once, and its dark form is what drawing it for a dark page would give."""

import re
from functools import partial

import numpy as np
import pytest
from made_runs import SECONDS, make_run
from matplotlib.colors import to_hex, to_rgb
from test_curves import contrast

from stepwise_jax.report.charts.seconds import _seconds_figure, draw_seconds
from stepwise_jax.report.figures import DARK, DARK_COLORS, LIGHT, contrasting_ink, in_dark, render
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
    assert drawn.png.startswith(b"\x89PNG")
