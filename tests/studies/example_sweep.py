"""A sweep whose runs get a made-up score in place of training."""

import dataclasses
import json
import math
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import field_type, override_fields
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.jobs import Failure, Job
from stepwise_jax.studies.sweep import (
    Sweep,
)
from stepwise_jax.workdir.files import CONFIG, SUMMARY
from stepwise_jax.workdir.folder import config_document

EXPERIMENT = ExperimentConfig()
M = 1000


def planned(fields: Sequence[str]) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
    """As `parsed`, at once: fields of one word each."""
    changes = {name.removeprefix("--"): word for name, word in zip(fields[::2], fields[1::2], strict=True)}
    experiment = override_fields(EXPERIMENT, {name: value_of(name, word) for name, word in changes.items()})
    return experiment, make_plan(experiment.plan, M, experiment.optimizer)


def value_of(name: str, word: str) -> Any:
    hint = field_type(name)
    return (float(word),) if typing.get_origin(hint) is tuple else hint(word) if hint in (int, float) else word


def make_sweep(root: Path, seeds: Sequence[int] = (0,), experiment: ExperimentConfig = EXPERIMENT) -> Sweep:
    return Sweep(root, experiment, tuple(seeds), ("launch", "train", "mine.py"), planned)


def finish(folder: Path, top1: float) -> None:
    folder.mkdir(parents=True)
    reached = {"top1": top1, "top5": 1.0, "best_top1": top1, "samples": 10_000, "updates": 100, "seconds": {}}
    (folder / SUMMARY).write_text(json.dumps(reached))


class Trainer:
    """Finishes every run with a score that is a function of its fields; the names in `fails` fail."""

    def __init__(self, fails: Sequence[str] = (), stop_after: float = math.inf):
        self.trained: list[str] = []
        self.fails, self.stop_after = fails, stop_after

    def __call__(self, jobs: Sequence[Job]) -> list[Failure]:
        failures = []
        for job in jobs:
            if job.done:
                continue
            if len(self.trained) >= self.stop_after:
                raise InterruptedRunError("stopped")
            self.trained.append(job.name)
            if any(name in job.name for name in self.fails):
                failures.append(Failure(job, 3, "the loss is not finite"))
                continue
            fields, stages = planned(job.command[5:])
            distance = abs(math.log(fields.plan.learning_rate / 0.003)) + abs(math.log2(fields.plan.batch_size / 48))
            finish(job.folder, 1 / (1 + distance))
            whole = dataclasses.replace(fields, steps_per_call=1)
            (job.folder / CONFIG).write_text(json.dumps(config_document(whole, stages, "mine.py", None, "1 x cpu")))
        return failures
