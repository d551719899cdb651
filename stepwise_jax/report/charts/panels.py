"""The plotted quantities of the records, and how their axes are scaled."""

from collections.abc import Sequence
from dataclasses import dataclass

from stepwise_jax.formatting import metric_label
from stepwise_jax.report.series import Series, other_metrics


@dataclass(frozen=True)
class CurvePanel:
    """One plotted quantity of the records."""

    label: str
    fields: tuple[str, ...]
    height: float
    stepped: bool = False
    """Whether the quantity is constant during an epoch, rather than measured at its end."""
    scale: float = 1.0


CURVE_PANELS = (
    CurvePanel("Test accuracy, top-1 (%)", ("top1",), 2.8, scale=100),
    CurvePanel("Test accuracy, top-5 (%)", ("top5",), 1.6, scale=100),
    CurvePanel("Cross-entropy loss (nats)", ("test_loss", "train_loss"), 1.8),
    CurvePanel("Learning rate", ("learning_rate",), 1.15, stepped=True),
    CurvePanel("Batch size (images)", ("batch_size",), 1.15, stepped=True),
    CurvePanel("Noise scale (learning rate × examples / batch size)", ("noise_scale",), 1.15, stepped=True),
)


def curve_panels(runs: Sequence[Series]) -> tuple[CurvePanel, ...]:
    """Return the panels of these curves: top-5 only where a run has it, and one for each other metric."""
    has_top5 = any(row["top5"] is not None for run in runs for row in run.rows)
    first = [panel for panel in CURVE_PANELS if has_top5 or panel.fields != ("top5",)]
    others = [CurvePanel(metric_label(name).capitalize(), (name,), 1.15) for name in other_metrics(runs)]
    place = next(index for index, panel in enumerate(first) if panel.stepped)
    return (*first[:place], *others, *first[place:])


def panel_values(panel: CurvePanel, runs: Sequence[Series]) -> list[float]:
    """Return every value that a panel shows, as recorded."""
    rows = [row for run in runs for row in (*run.rows, *run.lowest, *run.highest)]
    return [row[field] for row in rows for field in panel.fields if row.get(field) is not None]


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether values span so much that only a logarithmic axis shows them all."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 12


def value_limits(panel: CurvePanel, values: Sequence[float]) -> tuple[float, float] | None:
    """Return the limits of a panel's linear axis; None if they follow from its values."""
    if panel.stepped:
        return 0.0, 1.15 * max(values)
    return accuracy_limits(values) if panel.scale == 100 else None


def accuracy_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return limits in percent of an axis that shows these fractions.

    The first epochs of a run often span a larger range than all the others; the axis then starts above them. It covers
    at least five points, so that noise does not look like progress.
    """
    ordered = sorted(values) or [0.0, 1.0]
    lowest, early, highest = ordered[0], ordered[len(ordered) // 25], ordered[-1]
    bottom = early if highest - early < 0.5 * (highest - lowest) else lowest
    bottom = min(bottom, highest - 0.05)
    margin = 0.05 * (highest - bottom)
    return 100 * (bottom - margin), 100 * min(highest + margin, 1.004)
