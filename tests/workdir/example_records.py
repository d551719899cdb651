"""Records of a run, and their file."""

import dataclasses
from pathlib import Path
from typing import Any

from stepwise_jax.workdir.record_file import RecordWriter
from stepwise_jax.workdir.records import EpochRecord, StageRecord, StoredRecord

SPENT = {"train": 1.5, "input_wait": 0.1, "compile": 2.0, "evaluate": 0.25, "checkpoint": 0.0}


def epoch_record(stage: int = 1, epoch: int = 1, **changes: Any) -> EpochRecord:
    step = 100 * stage + 10 * epoch
    record = EpochRecord(
        stage=stage,
        stage_name="ABCDO"[stage - 1],
        epoch=epoch,
        step=step,
        examples_seen=24 * step,
        updates=step,
        learning_rate=0.001,
        batch_size=24,
        noise_scale=0.0119,
        train_loss=0.5,
        test_loss=0.6,
        top1=0.9,
        top5=0.99,
        best_top1=0.92,
        seconds=SPENT,
    )
    changed = dataclasses.replace(record, **changes)
    scores = {"top1": changed.top1, "top5": changed.top5, "loss": changed.test_loss}
    return dataclasses.replace(changed, metrics={name: value for name, value in scores.items() if value is not None})


def stage_record(stage: int = 1) -> StageRecord:
    return StageRecord(
        stage=stage,
        name="ABCDO"[stage - 1],
        fraction=0.2,
        examples=287,
        batch_size=24,
        learning_rate=0.001,
        milestones=(10,),
        epochs=20,
        updates=220,
        samples=5740,
        noise_scale=0.0120,
        noise_scale_exact=0.0110,
        split="train[:287]",
        sha256="ab" * 32,
    )


def write(workdir: Path, *rows: StoredRecord) -> None:
    with RecordWriter(workdir) as writer:
        for row in rows:
            writer.append(row)
