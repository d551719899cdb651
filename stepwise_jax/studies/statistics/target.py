"""The cost of a target: when a run first reaches an accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reached:
    """The end of the first epoch whose score reaches a target."""

    epoch: int
    """In the whole run, from 1."""
    samples: int
    seconds: float


def first_reaching(epochs: Sequence[Mapping[str, Any]], target: float) -> Reached | None:
    """When a run first reaches a test top-1 of `target`, a fraction; None if it never does.

    Args:
      epochs: the run's records of epochs, in order. One that was not scored has a `top1` of None.
      target: between 0 and 1.
    """
    seconds = 0.0
    for number, row in enumerate(epochs, start=1):
        seconds += sum(row["seconds"].values())
        if row["top1"] is not None and row["top1"] >= target:
            return Reached(number, row["examples_seen"], seconds)
    return None


def shared_target(runs: Sequence[Sequence[Mapping[str, Any]]]) -> float | None:
    """The highest top-1 that every run reaches at some epoch; None where a run has no score, or there is none.

    Args:
      runs: the records of epochs of each run.
    """
    scores = [[row["top1"] for row in epochs if row["top1"] is not None] for epochs in runs]
    return min(map(max, scores)) if scores and all(scores) else None
