"""Records: what happens in a run, as plain data.

Those of a stage, an epoch and an event are rows of `records.jsonl` (`record_file`). The others are for observers alone,
and are not kept.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

SECONDS = ("train", "input_wait", "compile", "evaluate", "checkpoint")
"""What the time of an epoch is split into."""


@dataclass(frozen=True)
class StageRecord:
    """Written when a stage starts: its plan, and the subset it trains on."""

    stage: int
    """Place in the plan, from 1."""
    name: str
    """The paper's letter: A, B, C, D or O."""
    fraction: float
    examples: int
    batch_size: int
    learning_rate: float
    milestones: Sequence[int]
    """Completed epochs of the stage at which the rate decays."""
    epochs: int
    updates: int
    """Optimiser steps of the whole stage."""
    samples: int
    """Nominal cost: epochs times examples."""
    noise_scale: float
    """Eq. 10, at the stage's first rate."""
    noise_scale_exact: float
    """Eq. 5, at the stage's first rate."""
    split: str
    """How the subset is drawn, `train[:287]` say."""
    sha256: str
    """Hash of the subset's ordered example ids."""
    kind: str = "stage"


@dataclass(frozen=True)
class EpochRecord:
    """Written when an epoch is done. Accuracies are fractions; scores are None where the epoch was not evaluated."""

    stage: int
    """Place in the plan, from 1."""
    stage_name: str
    epoch: int
    """Within the stage, from 1."""
    step: int
    """Optimiser steps in the whole run so far."""
    examples_seen: int
    """Examples really fed in the whole run so far."""
    updates: int
    """Optimiser steps in the whole run so far, as `step`."""
    learning_rate: float
    """Of this epoch, for the mean gradient."""
    batch_size: int
    noise_scale: float
    """Eq. 10, at this epoch's rate."""
    train_loss: float
    test_loss: float | None
    top1: float | None
    top5: float | None
    best_top1: float | None
    """Highest top-1 of the run so far."""
    seconds: Mapping[str, float]
    """Seconds by kind, one entry for each of `SECONDS`."""
    kind: str = "epoch"


@dataclass(frozen=True)
class EventRecord:
    """Something that happened in between: start, resume, checkpoint, compile, fallback, done."""

    name: str
    message: str
    time: float = dataclasses.field(default_factory=time.time)
    """Seconds since 1970-01-01 UTC."""
    kind: str = "event"


StoredRecord = StageRecord | EpochRecord | EventRecord
"""A row of `records.jsonl`."""


@dataclass(frozen=True)
class PreparationRecord:
    """Something that takes long before training starts: `done` of `total` are ready."""

    done: int
    total: int
    what: str


@dataclass(frozen=True)
class StartRecord:
    """A run starts, or continues."""

    title: str
    stages: Sequence[Row]
    """The planned stages, as in `config.json`."""
    samples: int
    """Examples that the whole run feeds."""


@dataclass(frozen=True)
class StepsRecord:
    """Some optimizer steps are done; sent after each call of the compiled step."""

    epoch: int
    """Within the stage, from 1."""
    epochs: int
    """Of the stage."""
    examples_seen: int
    """Examples fed in the whole run so far."""
    images_per_second: float
    """In this epoch; 0 before the first losses have arrived."""
    loss: float | None
    """Mean of this epoch so far; None before the first losses have arrived."""


@dataclass(frozen=True)
class EndRecord:
    """The run ends, in whatever way."""


Record = StoredRecord | PreparationRecord | StartRecord | StepsRecord | EndRecord
"""What an observer is called with."""
