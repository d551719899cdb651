"""A place in training, as checkpoints keep it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwise_jax.plans.stage import Stage


@dataclass(frozen=True)
class Progress:
    """A place in training, and the sums of what came before it in its epoch and in the run."""

    stage: int = 1
    """From 1; one past the last stage when the run is done."""
    epoch: int = 1
    """From 1 within the stage."""
    step: int = 0
    """Steps of this epoch that are done; all of them where the epoch is not scored yet."""
    updates: int = 0
    """Steps of the run that are done."""
    examples_seen: int = 0
    loss_sum: float = 0.0
    """Over this epoch's steps."""
    best_top1: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Of this epoch, by kind, in earlier processes too."""
    setbacks: tuple[int, ...] = ()
    """Stages, from 1, that were begun anew with a lower rate because the loss was not finite, once for each time."""

    def document(self) -> dict[str, Any]:
        """Plain JSON data."""
        return dataclasses.asdict(self) | {"setbacks": list(self.setbacks)}


def progress_from(document: Mapping[str, Any]) -> Progress:
    """The inverse of `Progress.document`; older runs did not record that there were no setbacks."""
    return Progress(**{**document, "setbacks": tuple(document.get("setbacks", ()))})


def updates_before(stages: Sequence[Stage], number: int) -> int:
    """Steps of the run that are done when stage `number`, from 1, begins."""
    return sum(stage.updates for stage in stages[: number - 1])
