"""What a comparison has decided, and when it was looked at, so that later additions are marked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepwise_jax.studies.comparison import Comparison

Look = Mapping[str, int]
"""The number of finished seeds of each arm when the results were shown."""


@dataclass(frozen=True)
class History:
    """What was decided before the first look, and every look."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    margin: float
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Additions:
    """What was decided after the results had been looked at, or after the design."""

    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    margin: bool = False

    def __bool__(self) -> bool:
        return bool(self.arms or self.seeds or self.margin)


def new_history(comparison: Comparison) -> History:
    """The history of a comparison that has not been looked at: all that it consists of is decided."""
    return History(tuple(arm.name for arm in comparison.arms), comparison.seeds, comparison.protocol.margin)


def update_history(history: History, comparison: Comparison, designed: bool) -> History:
    """The history after a command that may have added arms or seeds.

    Args:
      history: before the command.
      comparison: with what the command added.
      designed: whether a design fixes the arms and the seeds: then nothing is ever decided later.
    """
    if history.looks or designed:
        return history
    return new_history(comparison)


def add_look(history: History, finished: Look) -> History:
    """The history with one more look; the same results shown again are no further look."""
    counts = dict(finished)
    if not any(counts.values()) or (history.looks and dict(history.looks[-1]) == counts):
        return history
    return History(history.arms, history.seeds, history.margin, (*history.looks, counts))


def find_additions(history: History, comparison: Comparison) -> Additions:
    """The arms and seeds of a comparison that were not decided beforehand."""
    return Additions(
        tuple(arm.name for arm in comparison.arms if arm.name not in history.arms),
        tuple(seed for seed in comparison.seeds if seed not in history.seeds),
        comparison.protocol.margin != history.margin,
    )


def history_to_dict(history: History) -> dict[str, Any]:
    """The history as plain data."""
    looks = [dict(look) for look in history.looks]
    return {"arms": list(history.arms), "seeds": list(history.seeds), "margin": history.margin, "looks": looks}


def history_from_dict(document: Mapping[str, Any]) -> History:
    """The history that `history_to_dict` wrote.

    Raises:
      KeyError, TypeError, ValueError, AttributeError: if the document is damaged.
    """
    looks = tuple({str(name): int(count) for name, count in look.items()} for look in document["looks"])
    names, seeds = tuple(map(str, document["arms"])), tuple(int(seed) for seed in document["seeds"])
    return History(names, seeds, float(document["margin"]), looks)


def describe_additions(additions: Additions) -> str:
    """What was added after looking, in one sentence; empty where nothing was."""
    if not additions:
        return ""
    parts = [f"strategies {', '.join(additions.arms)}"] if additions.arms else []
    parts += [f"seeds {', '.join(map(str, additions.seeds))}"] if additions.seeds else []
    parts += ["the margin"] if additions.margin else []
    return f"Added after looking: {'; '.join(parts)}."


def describe_looks(looks: Sequence[Look]) -> str:
    """How often the results were looked at, and after how many seeds each time."""
    if not looks:
        return "Nobody has looked at results yet."
    return f"Looks at the results so far: {len(looks)} (finished seeds: {', '.join(map(_seeds, looks))})."


def _seeds(look: Look) -> str:
    fewest, most = min(look.values()), max(look.values())
    return str(most) if fewest == most else f"{fewest} to {most}"
