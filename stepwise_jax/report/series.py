"""What one line of a picture shows: a run, or the mean over runs that differ in their seed alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepwise_jax.workdir.records import Row
from stepwise_jax.workdir.runs import Run

_AVERAGED = ("top1", "top5", "best_top1", "test_loss", "train_loss")


@dataclass(frozen=True)
class Series:
    """The epochs of a line, in order."""

    name: str
    stages: Sequence[Row]
    rows: tuple[Row, ...]
    """One for each recorded epoch; scores are means over seeds, None where a run has none."""
    finished: bool
    lowest: tuple[Row, ...] = ()
    """The rows with the lowest value of each score over seeds; empty for a single run."""
    highest: tuple[Row, ...] = ()


def group_series(runs: Sequence[Run], names: Mapping[str, str] | None = None) -> tuple[Series, ...]:
    """One curve for each group of runs that differ in their seed alone, in the order of their first run.

    Args:
      runs: at least one.
      names: of the groups, by the name of any of their runs; by default the folder that they share.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    return tuple(_curve(group, (names or {}).get(group[0].name) or _name(group)) for group in groups.values())


def _key(run: Run) -> str:
    experiment = {name: value for name, value in run.config["experiment"].items() if name != "seed"}
    return json.dumps([experiment, run.stages], sort_keys=True)


def _name(group: Sequence[Run]) -> str:
    if len(group) == 1:
        return group[0].name
    parents = {run.folder.parent.name for run in group}
    return f"{parents.pop() if len(parents) == 1 else group[0].name}, {len(group)} seeds"


def _curve(group: Sequence[Run], name: str) -> Series:
    finished = all(run.summary for run in group)
    if len(group) == 1:
        return Series(name, group[0].stages, group[0].records.epochs, finished)
    # Where one run is not as far as another, the mean over both ends.
    places = [{(row["stage"], row["epoch"]): row for row in run.records.epochs} for run in group]
    common = [[place[key] for place in places] for key in places[0] if all(key in place for place in places)]
    means, lowest, highest = (
        tuple(_joined(rows, join) for rows in common) for join in (lambda values: sum(values) / len(values), min, max)
    )
    return Series(name, group[0].stages, means, finished, lowest, highest)


def _joined(rows: Sequence[Row], join: Any) -> Row:
    values = {name: [row[name] for row in rows] for name in _AVERAGED}
    joined = {name: None if None in found else join(found) for name, found in values.items()}
    return {**rows[0], **joined}
