"""Curves of several seeds show their whole range, and their legend explains them."""

import numpy as np
import pytest
from made_runs import BASELINE, make_run
from matplotlib.collections import PolyCollection

from stepwise_jax.report.curves import _draw_figure
from stepwise_jax.report.figures import LIGHT
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


def test_seeds_are_one_curve_with_its_range(tmp_path):
    folders = [make_run(tmp_path / "x" / f"seed{seed}", seed=seed, ahead=0.01 * seed) for seed in range(3)]
    other = make_run(tmp_path / "y", BASELINE)
    *seeds, alone = read_runs([*folders, other])
    first, second = group_series({"x": seeds, "none": [], "y": [alone]})
    assert (first.name, second.name, second.lowest) == ("x", "y", ())
    assert (first.color, second.color) == (0, 2)
    for row, low, high in zip(first.rows, first.lowest, first.highest, strict=True):
        assert row["top1"] == pytest.approx(low["top1"] + 0.01)
        assert high["top1"] == pytest.approx(low["top1"] + 0.02)


def test_a_mean_curve_ends_with_the_least_finished_seed(tmp_path):
    folders = [make_run(tmp_path / "x" / f"seed{seed}", seed=seed, epochs=3 + 2 * seed) for seed in range(2)]
    (curve,) = group_series({"x": read_runs(folders)})
    assert len(curve.rows) == 3
    assert not curve.finished
