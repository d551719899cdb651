"""Folders of runs and of a comparison as training leaves them, written without training."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stepwise_jax.experiment.config import ExperimentConfig, ModelConfig, PlanConfig
from stepwise_jax.experiment.serialization import experiment_to_dict
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale, stage_to_dict
from stepwise_jax.studies import comparison, comparison_folder
from stepwise_jax.studies.variants import VARIANTS
from stepwise_jax.workdir.json_files import write_json
from stepwise_jax.workdir.record_file import RecordWriter
from stepwise_jax.workdir.records import EpochRecord, StageRecord

EXAMPLES = 1437
STEPWISE = PlanConfig(epochs_per_stage=4, decay_every=2)
BASELINE = PlanConfig(strategy="baseline", baseline_epochs=6, baseline_decay_every=3)
SECONDS = {"train": 6.0, "input_wait": 0.5, "compile": 2.0, "evaluate": 1.0, "checkpoint": 0.5}


def make_run(
    folder: Path,
    plan: PlanConfig = STEPWISE,
    seed: int = 0,
    epochs: int | None = None,
    ahead: float = 0.0,
    **fields: Any,
) -> Path:
    """A run's folder as training leaves it, or as it is after `epochs` epochs; `ahead` is added to its top-1."""
    experiment = ExperimentConfig(plan=plan, seed=seed, model=ModelConfig(name="res2net50_26w_4s"))
    stages = make_plan(plan, EXAMPLES, experiment.optimizer)
    folder.mkdir(parents=True)
    config = {"experiment": experiment_to_dict(experiment), "stages": [stage_to_dict(stage) for stage in stages]}
    config |= {"versions": {"jax": "0.10.2", "numpy": "2.4.0"}, "device": "1 x cpu", "config": "configs/digits.py"}
    write_json(folder / "config.json", config)
    rows = epoch_records(stages, ahead)[:epochs]
    with RecordWriter(folder) as writer:
        for place, stage in enumerate(stages, start=1):
            writer.append(stage_record(place, stage))
        for row in rows:
            writer.append(row)
    if epochs is None:
        write_json(folder / "summary.json", summary(rows, stages))
    return folder


def stage_record(place: int, stage: Stage) -> StageRecord:
    shared = {item.name for item in dataclasses.fields(StageRecord)} & stage_to_dict(stage).keys()
    fields = {name: stage_to_dict(stage)[name] for name in shared}
    return StageRecord(stage=place, split=f"train[:{stage.examples}]", sha256=f"{place:064x}", **fields)


def epoch_records(stages: tuple[Stage, ...], ahead: float = 0.0) -> list[EpochRecord]:
    rows, step, seen = [], 0, 0
    for place, stage in enumerate(stages, start=1):
        for epoch in range(1, stage.epochs + 1):
            step, seen = step + stage.updates_per_epoch, seen + stage.updates_per_epoch * stage.batch_size
            rate, top1 = learning_rate_at(stage, epoch), 0.9 - 0.8 / (1 + len(rows)) + ahead
            row = EpochRecord(
                stage=place,
                stage_name=stage.name,
                epoch=epoch,
                step=step,
                examples_seen=seen,
                updates=step,
                learning_rate=rate,
                batch_size=stage.batch_size,
                noise_scale=noise_scale(stage, rate),
                train_loss=2.0 / (1 + len(rows)) ** 2,
                test_loss=2.2 / (1 + len(rows)),
                top1=top1,
                top5=(1 + top1) / 2,
                metrics={"top1": top1, "top5": (1 + top1) / 2, "loss": 2.2 / (1 + len(rows))},
                best_top1=top1,
                seconds=SECONDS,
            )
            rows.append(row)
    return rows


def summary(rows: list[EpochRecord], stages: tuple[Stage, ...]) -> dict[str, Any]:
    last = rows[-1]
    return {
        "top1": last.top1,
        "top5": last.top5,
        "best_top1": last.best_top1,
        "samples": sum(stage.samples for stage in stages),
        "updates": last.updates,
        "flops": 1e12,
        "seconds": {kind: len(rows) * seconds for kind, seconds in SECONDS.items()},
        "stages": [{"name": stage.name} for stage in stages],
        "state_sha256": "ab" * 32,
    }


def make_predictions(
    folder: Path, wrong: Sequence[int], images: int = 40, classes: Sequence[str] = ("cat", "dog")
) -> None:
    """`predictions.npz` and `samples.npz` in a run's folder: image i is of class i modulo their number."""
    labels = np.arange(images) % len(classes)
    predicted = np.where(np.isin(np.arange(images), wrong), (labels + 1) % len(classes), labels)
    probabilities = np.full((images, len(classes)), 0.3 / max(len(classes) - 1, 1))
    probabilities[np.arange(images), predicted] = 0.7
    ids = np.array([f"image {i}" for i in range(images)])
    np.savez(folder / "predictions.npz", ids=ids, labels=labels, probabilities=probabilities, classes=np.array(classes))
    shown = np.array([*wrong[:2], 5, 6])
    np.savez(folder / "samples.npz", rows=shown, images=np.full((len(shown), 8, 8, 3), 99, np.uint8))


def make_comparison(root: Path, seeds: Sequence[int] = (0, 1, 2), baseline: float = 0.01) -> Path:
    """A finished comparison of the staged run with the baseline, which is ahead by about `baseline`."""
    arms = tuple(
        comparison.Arm(name, VARIANTS[name].title, "configs/digits.py", VARIANTS[name].changes)
        for name in ("stepwise", "baseline")
    )
    experiment = ExperimentConfig(plan=STEPWISE, model=ModelConfig(name="res2net50_26w_4s"))
    compared = comparison.Comparison("configs/digits.py", experiment, arms, tuple(seeds))
    comparison_folder.open_comparison_folder(root, compared)
    for seed in seeds:
        for name, plan, ahead in (("stepwise", STEPWISE, 0.0), ("baseline", BASELINE, baseline)):
            folder = make_run(compared.run_folder(root, name, seed), plan, seed, ahead=ahead * (1 + 0.1 * seed))
            make_predictions(folder, wrong=range(3 + seed if name == "stepwise" else seed))
    return root
