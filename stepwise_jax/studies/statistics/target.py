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


def median_cost(reached: Sequence[Reached | None]) -> Reached | None:
    """The median of each cost over runs, where a run that never reaches the target costs more than any other.

    Returns:
      The lower median, which is the cost of a run; None where that run never reaches the target, or there is none.
    """
    costs = [each for each in reached if each is not None]
    middle = (len(reached) - 1) // 2
    if len(costs) <= middle or not reached:
        return None
    epochs, samples, seconds = (
        sorted(each) for each in zip(*((each.epoch, each.samples, each.seconds) for each in costs), strict=True)
    )
    return Reached(epochs[middle], samples[middle], seconds[middle])
