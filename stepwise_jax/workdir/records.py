"""Records: the progress of a run as plain data.

Records of stages, epochs, gradient noise and events are rows of `records.jsonl` (`record_file`). The others are not
stored. Each has a `kind`, so that readers need not know the classes.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]
"""A stored record as JSON data."""


def row_metrics(row: Row) -> dict[str, float]:
    """The scores of an epoch, or of a stage or run in `summary.json`, by name; older runs have no `metrics`."""
    if row.get("metrics"):
        return row["metrics"]
    older = {"top1": row.get("top1"), "top5": row.get("top5"), "loss": row.get("test_loss")}
    return {name: value for name, value in older.items() if value is not None}


TIME_KINDS = ("train", "input_wait", "compile", "evaluate", "checkpoint")
"""The categories into which the time of an epoch is split."""


@dataclass(frozen=True)
class StageRecord:
    """Written when a stage starts: its plan and its subset."""

    stage: int
    """Position in the plan, from 1."""
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
    """The subset as a split, for example `train[:287]`."""
    sha256: str
    """Hash of the subset's ordered example ids."""
    kind: Literal["stage"] = "stage"


@dataclass(frozen=True)
class EpochRecord:
    """Written after an epoch. Accuracies are fractions; scores are None if the epoch was not evaluated."""

    stage: int
    """Position in the plan, from 1."""
    stage_name: str
    epoch: int
    """Within the stage, from 1."""
    step: int
    """Optimiser steps in the whole run so far."""
    examples_seen: int
    """Examples trained on in the whole run so far."""
    updates: int
    """The same as `step`."""
    learning_rate: float
    """Of this epoch; applies to the mean gradient."""
    batch_size: int
    noise_scale: float
    """Eq. 10, at this epoch's rate."""
    train_loss: float
    test_loss: float | None
    top1: float | None
    top5: float | None
    """None also where there are five classes or fewer."""
    best_top1: float | None
    """Highest top-1 of the run so far."""
    seconds: Mapping[str, float]
    """Seconds by kind, one entry for each of `TIME_KINDS`."""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Every score by name: top1, top5 with more than five classes, loss, and others; empty without scores."""
    kind: Literal["epoch"] = "epoch"


@dataclass(frozen=True)
class NoiseRecord:
    """Gradient noise measured at fixed weights; pairs are 95 % intervals. NaN where a value is not identified."""

    stage: int
    """Position in the plan, from 1."""
    stage_name: str
    side: Literal["start", "end"]
    """Of the stage; the end of one and the start of the next are the two sides of a boundary."""
    statistics: Literal["frozen", "batch"]
    """Batch norm's: the running ones, in evaluation mode, or each microbatch's own, in training mode."""
    microbatches: int
    microbatch_size: int
    """The stage's batch size."""
    trace: float
    """tr Sigma, of the gradient of one example."""
    trace_interval: Sequence[float]
    squared_norm: float
    """|G|^2; noise can make it negative."""
    squared_norm_interval: Sequence[float]
    b_simple: float
    """tr Sigma / |G|^2; not identified if |G|^2 is not positive."""
    b_simple_interval: Sequence[float]
    learning_rate: float
    """Of the stage's first epoch at its start, of its last at its end."""
    noise_scale: float
    """Eq. 10 at this rate: lambda M / b."""
    rate_over_batch: float
    """lambda / b."""
    step_noise: float
    """lambda tr Sigma / b."""
    seconds: float
    kind: Literal["noise"] = "noise"


@dataclass(frozen=True)
class EventRecord:
    """Something that happened: start, resume, checkpoint, compile, fallback, done."""

    name: str
    message: str
    time: float = dataclasses.field(default_factory=time.time)
    """Seconds since 1970-01-01 UTC."""
    kind: Literal["event"] = "event"


StoredRecord = StageRecord | EpochRecord | NoiseRecord | EventRecord
"""A row of `records.jsonl`."""


@dataclass(frozen=True)
class PreparationRecord:
    """Progress of a long preparation before training: `done` of `total` are ready, 0 of an unknown number."""

    done: int
    total: int
    what: str
    kind: Literal["preparation"] = "preparation"


@dataclass(frozen=True)
class StartRecord:
    """A run starts, or continues."""

    title: str
    stages: Sequence[Row]
    """The planned stages, as in `config.json`."""
    samples: int
    """Examples that the whole run trains on, counting each as often as it is seen."""
    experiment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The fields of the experiment by dotted name, functions by their names."""
    kind: Literal["start"] = "start"


@dataclass(frozen=True)
class StepsRecord:
    """Sent after each call of the compiled step, which makes one or several updates."""

    epoch: int
    """Within the stage, from 1."""
    epochs: int
    """Of the stage."""
    examples_seen: int
    """Examples trained on in the whole run so far."""
    images_per_second: float
    """In this epoch; 0 before the first losses have arrived."""
    loss: float | None
    """Mean of this epoch so far; None before the first losses have arrived."""
    kind: Literal["steps"] = "steps"


@dataclass(frozen=True)
class SummaryRecord:
    """A run is finished, now or before: the contents of `summary.json`."""

    summary: Mapping[str, Any]
    kind: Literal["summary"] = "summary"


@dataclass(frozen=True)
class EndRecord:
    """The run ends, whether it is finished, stopped or failed."""

    kind: Literal["end"] = "end"


Record = StoredRecord | PreparationRecord | StartRecord | StepsRecord | SummaryRecord | EndRecord
"""The argument of an observer."""
