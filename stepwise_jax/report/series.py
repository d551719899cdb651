"""The data of one curve: a run, or the mean over runs that differ only in their seed."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stepwise_jax.workdir.records import Row, row_metrics
from stepwise_jax.workdir.runs import Run

Axis = Literal["epoch", "samples"]

AXES: tuple[Axis, ...] = ("epoch", "samples")

_AVERAGED = ("top1", "top5", "best_top1", "test_loss", "train_loss")

_OWN_FIELDS = ("top1", "top5", "loss")
"""Metrics that an epoch has as fields of its own."""


@dataclass(frozen=True)
class Series:
    """The epochs of one curve, in order."""

    name: str
    stages: Sequence[Row]
    rows: tuple[Row, ...]
    """One row for each recorded epoch; scores are means over seeds, None if a run has no score."""
    finished: bool
    color: int = 0
    """The place of its colour in the palette."""
    lowest: tuple[Row, ...] = ()
    """Rows with the lowest value of each score over seeds; empty for a single run."""
    highest: tuple[Row, ...] = ()


def run_series(runs: Sequence[Run]) -> tuple[Series, ...]:
    """Return one curve for each run, under its name."""
    return group_series({run.name: [run] for run in runs})


def group_series(groups: Mapping[str, Sequence[Run]]) -> tuple[Series, ...]:
    """Return one curve for each group of runs that differ only in their seed; a group without runs has none.

    Args:
      groups: runs by name. A group's place is that of its colour.
    """
    named = enumerate(groups.items())
    return tuple(_series(group, name, color) for color, (name, group) in named if group)


def stage_boundaries(run: Series, axis: Axis) -> list[float]:
    """Return the start of each stage and the end of the last one, in planned epochs or samples."""
    sizes = [stage["epochs"] * (1 if axis == "epoch" else _samples_per_epoch(stage)) for stage in run.stages]
    return [0, *itertools.accumulate(sizes)]


def epoch_ends(run: Series, axis: Axis) -> list[float]:
    """Return the position on an axis at which each recorded epoch ends."""
    if axis == "samples":
        return [row["examples_seen"] for row in run.rows]
    starts = stage_boundaries(run, "epoch")
    return [starts[row["stage"] - 1] + row["epoch"] for row in run.rows]


def _samples_per_epoch(stage: Row) -> int:
    """Samples in an epoch: full batches only, the rest is dropped."""
    return stage["examples"] // stage["batch_size"] * stage["batch_size"]


def _series(group: Sequence[Run], name: str, color: int) -> Series:
    finished = all(run.summary for run in group)
    if len(group) == 1:
        return Series(name, group[0].stages, _epochs(group[0]), finished, color)
    # The curve ends with the run that is least far.
    by_epoch = [{(row["stage"], row["epoch"]): row for row in _epochs(run)} for run in group]
    common = [[rows[key] for rows in by_epoch] for key in by_epoch[0] if all(key in rows for rows in by_epoch)]
    means, lowest, highest = (
        tuple(_reduce(rows, reduce) for rows in common)
        for reduce in (lambda values: sum(values) / len(values), min, max)
    )
    return Series(name, group[0].stages, means, finished, color, lowest, highest)


def other_metrics(series: Sequence[Series]) -> tuple[str, ...]:
    """Return the metrics beside top-1, top-5 and loss that any of these curves has, in order."""
    rows = (row for each in series for row in each.rows)
    return tuple(dict.fromkeys(name for row in rows for name in row_metrics(row) if name not in _OWN_FIELDS))


def _epochs(run: Run) -> tuple[Row, ...]:
    """The rows of a run, each with its other metrics as fields of their own."""
    names = dict.fromkeys(name for row in run.records.epochs for name in row_metrics(row) if name not in _OWN_FIELDS)
    return tuple({**{name: row_metrics(row).get(name) for name in names}, **row} for row in run.records.epochs)


def _reduce(rows: Sequence[Row], reduce: Callable[[list[float]], float]) -> Row:
    """The rows of one epoch as one row, with each score reduced over the seeds."""
    others = [name for name in row_metrics(rows[0]) if name not in _OWN_FIELDS]
    scores: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in (*_AVERAGED, *others)}
    return {**rows[0], **{name: None if None in values else reduce(values) for name, values in scores.items()}}
