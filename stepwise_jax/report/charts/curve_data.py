"""The data of curves as a JSON document, from which the page's script draws them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stepwise_jax.report.charts.panels import CurvePanel, is_logarithmic, panel_values, value_limits
from stepwise_jax.report.figures import LIGHT
from stepwise_jax.report.series import AXES, Axis, Series, epoch_ends, stage_boundaries
from stepwise_jax.workdir.records import Row

AXIS_LABELS: Mapping[Axis, str] = {"epoch": "epochs", "samples": "samples fed (images)"}


def curves_document(runs: Sequence[Series], panels: Sequence[CurvePanel], labels: Sequence[str]) -> str:
    """Return curves as a JSON document.

    Args:
      runs: the curves.
      panels: the quantities to plot.
      labels: of each curve, for its button.
    """
    document = {
        "axes": dict(AXIS_LABELS),
        "panels": [_panel(panel, runs) for panel in panels],
        "lines": [_line(run, panels, label) for run, label in zip(runs, labels, strict=True)],
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _panel(panel: CurvePanel, runs: Sequence[Series]) -> dict[str, Any]:
    values = panel_values(panel, runs)
    return {
        "label": panel.label,
        "fields": panel.fields,
        "stepped": panel.stepped,
        "percent": panel.scale == 100,
        "log": is_logarithmic(values),
        "range": value_limits(panel, values) if values else None,
    }


def _line(run: Series, panels: Sequence[CurvePanel], label: str) -> dict[str, Any]:
    ends = zip(run.stages, *(stage_boundaries(run, axis)[1:] for axis in AXES), strict=True)
    scales = {field: panel.scale for panel in panels for field in panel.fields}
    # Of a panel's lines, the first one has a band.
    banded = {panel.fields[0]: panel.scale for panel in panels if not panel.stepped}
    return {
        "name": run.name,
        "label": label,
        "title": " → ".join(str(stage["name"]) for stage in run.stages),
        "color": run.color,
        "palette": len(LIGHT.palette),
        "stages": [{"name": str(stage["name"]), "epoch": epoch, "samples": samples} for stage, epoch, samples in ends],
        **{axis: epoch_ends(run, axis) for axis in AXES},
        "values": _columns(run.rows, scales),
        **({"low": _columns(run.lowest, banded), "high": _columns(run.highest, banded)} if run.lowest else {}),
    }


def _columns(rows: Sequence[Row], scales: Mapping[str, float]) -> dict[str, list[float | None]]:
    """The values of each field that has any, with six digits: more than a screen can show."""
    found = {field: [_rounded(row.get(field), scale) for row in rows] for field, scale in scales.items()}
    return {field: values for field, values in found.items() if any(value is not None for value in values)}


def _rounded(value: float | None, scale: float) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{scale * value:.6g}")
