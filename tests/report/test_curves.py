"""Curves of several seeds show their whole range, and their legend explains them."""

import numpy as np
import pytest
from made_runs import BASELINE, make_run
from matplotlib.collections import PolyCollection

from stepwise_jax.report.curves import _draw_figure
from stepwise_jax.report.figures import DARK, LIGHT, contrasting_color
from stepwise_jax.report.series import Series, group_series
from stepwise_jax.workdir.runs import read_runs


@pytest.fixture(scope="module")
def curves(tmp_path_factory) -> tuple[Series, ...]:
    folder = tmp_path_factory.mktemp("curves")
    folders = [make_run(folder / "x" / f"seed{seed}", BASELINE, seed=seed, ahead=0.09 * seed) for seed in range(2)]
    *seeds, other = read_runs([*folders, make_run(folder / "y")])
    return group_series({"x": seeds, "y": [other]})


def test_a_band_spans_the_seeds_within_its_axes(curves):
    figure = _draw_figure(curves, ("epoch",), LIGHT)
    top1 = figure.axes[1]
    (band,) = (each for each in top1.collections if isinstance(each, PolyCollection))
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    tops = [100 * row["top1"] for row in curves[0].rows]
    assert heights.max() == pytest.approx(max(tops) + 4.5)
    assert heights.max() <= top1.get_ylim()[1]
    assert np.isin(np.round(np.subtract(tops, 4.5), 6), np.round(heights, 6)).all()


def test_the_legend_explains_lines_and_bands(curves):
    (legend,) = _draw_figure(curves, ("samples",), LIGHT).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "x, mean top-1 81.17 %",
        "y, top-1 86.00 %",
        "lowest to highest of the seeds",
    ]
    (alone,) = _draw_figure(curves[1:], ("samples",), LIGHT).legends
    assert [text.get_text() for text in alone.get_texts()] == ["y, top-1 86.00 %"]


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
