"""The numbers of a record by tag, the same in every logger."""

import math
from collections.abc import Mapping
from typing import Any

from stepwise_jax.workdir.records import EpochRecord

_TAGS = {
    "train/loss": "train_loss",
    "schedule/learning_rate": "learning_rate",
    "schedule/batch_size": "batch_size",
    "schedule/noise_scale": "noise_scale",
}


def epoch_scalars(record: EpochRecord) -> dict[str, float]:
    """Return an epoch's finite numbers: `test/NAME` for each metric, the training loss, rate, batch and noise scale."""
    scores = {f"test/{name}": value for name, value in record.metrics.items()}
    return _finite(scores | {tag: getattr(record, name) for tag, name in _TAGS.items()})


def summary_scalars(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of `summary.json`: `summary/NAME`, and `summary/seconds/KIND`."""
    seconds = {f"seconds/{kind}": value for kind, value in summary.get("seconds", {}).items()}
    values = {**summary, **summary.get("metrics", {}), **seconds}
    return {f"summary/{name}": value for name, value in _finite(values).items()}


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}
