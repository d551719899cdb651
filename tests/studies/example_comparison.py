"""A comparison of strategies and of rows of a configuration file, its plans, and runs that finished."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies import comparison
from stepwise_jax.studies.comparison import Comparison, choose_arms
from stepwise_jax.studies.variants import find_variant
from stepwise_jax.workdir.files import PREDICTIONS, SUMMARY

EXPERIMENT = ExperimentConfig()
ROWS = {"short": ExperimentConfig(plan=PlanConfig(epochs_per_stage=5)), "long [slow]": ExperimentConfig()}


def own(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
    return (Stage("all", 1.0, examples, 10, 0.3, epochs=3),)


def compared(*names: str, seeds: Sequence[int] = (0, 1), experiment: ExperimentConfig = EXPERIMENT) -> Comparison:
    return Comparison("mine.py", experiment, choose_arms(names, "mine.py", experiment, ROWS), tuple(seeds))


def changes_of(name: str) -> Mapping[str, Any]:
    variant = find_variant(name)
    assert variant is not None
    return variant.changes


def plans_of(*names: str, experiment: ExperimentConfig = EXPERIMENT, examples: int = 50_000):
    found = {name: override_fields(experiment, changes_of(name)) for name in names}
    return comparison.make_plans(found, dict.fromkeys(found, examples))


IDS = tuple(f"image{number}" for number in range(50))


def finish(root: Path, strategy: str, seed: int, right: int, ids: Sequence[str] = IDS) -> Path:
    """A finished run that has `right` of the images right, the last ones."""
    folder = root / strategy / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.arange(len(ids)) % 2
    predicted = np.where(np.arange(len(ids)) >= len(ids) - right, labels, 1 - labels)
    probabilities = np.eye(2, dtype=np.float32)[predicted]
    np.savez(folder / PREDICTIONS, ids=np.asarray(ids), labels=labels, probabilities=probabilities)
    reached = {"top1": right / len(ids), "top5": 1.0, "best_top1": 0.9, "samples": 1200, "updates": 30}
    (folder / SUMMARY).write_text(json.dumps({**reached, "seconds": {"train": 60.0, "compile": 5.0}}))
    return folder
