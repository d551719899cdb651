"""The data of one curve: a run, or the mean over runs that differ only in their seed."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stepwise_jax.workdir.records import Row
from stepwise_jax.workdir.runs import Run

Axis = Literal["epoch", "samples"]

AXES: tuple[Axis, ...] = ("epoch", "samples")

_AVERAGED = ("top1", "top5", "best_top1", "test_loss", "train_loss")


@dataclass(frozen=True)
class Series:
    """The epochs of one curve, in order."""

    name: str
    stages: Sequence[Row]
    rows: tuple[Row, ...]
    """One row for each recorded epoch; scores are means over seeds, None if a run has no score."""
    finished: bool
    lowest: tuple[Row, ...] = ()
    """Rows with the lowest value of each score over seeds; empty for a single run."""
    highest: tuple[Row, ...] = ()


def group_series(runs: Sequence[Run], names: Mapping[str, str] | None = None) -> tuple[Series, ...]:
    """Return one curve for each group of runs that differ only in their seed, in the order of their first run.

    Args:
      runs: at least one run.
      names: the name of each group, by the name of its first run; by default the folder that its runs share.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_without_seed(run), []).append(run)
    return tuple(_series(group, (names or {}).get(group[0].name) or _group_name(group)) for group in groups.values())


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


def _without_seed(run: Run) -> str:
    experiment = {name: value for name, value in run.config["experiment"].items() if name != "seed"}
    return json.dumps([experiment, run.stages], sort_keys=True)


def _group_name(group: Sequence[Run]) -> str:
    if len(group) == 1:
        return group[0].name
    parents = {run.folder.parent.name for run in group}
    return f"{parents.pop() if len(parents) == 1 else group[0].name}, {len(group)} seeds"


def _series(group: Sequence[Run], name: str) -> Series:
    finished = all(run.summary for run in group)
    if len(group) == 1:
        return Series(name, group[0].stages, group[0].records.epochs, finished)
    # The curve ends with the run that is least far.
    by_epoch = [{(row["stage"], row["epoch"]): row for row in run.records.epochs} for run in group]
    common = [[rows[key] for rows in by_epoch] for key in by_epoch[0] if all(key in rows for rows in by_epoch)]
    means, lowest, highest = (
        tuple(_reduce(rows, reduce) for rows in common)
        for reduce in (lambda values: sum(values) / len(values), min, max)
    )
    return Series(name, group[0].stages, means, finished, lowest, highest)


def _reduce(rows: Sequence[Row], reduce: Callable[[list[float]], float]) -> Row:
    """The rows of one epoch as one row, with each score reduced over the seeds."""
    scores = {name: [row[name] for row in rows] for name in _AVERAGED}
    return {**rows[0], **{name: None if None in values else reduce(values) for name, values in scores.items()}}
