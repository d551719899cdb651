"""Progressive step-wise training: how much data, which batch size and which learning rate, when.

Everything a script or a notebook starts from is here. Importing this module is quick: each name is loaded when it is
first used, and JAX only by those that need it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwise_jax.data import datasets
    from stepwise_jax.errors import InputError, StepwiseError
    from stepwise_jax.experiment.config import (
        CheckpointConfig,
        DataConfig,
        EvaluationConfig,
        ExperimentConfig,
        LossConfig,
        ModelConfig,
        OptimizerConfig,
        PlanConfig,
        StreamsConfig,
    )
    from stepwise_jax.experiment.config_files import load_config
    from stepwise_jax.functional import augmentation, losses, metrics, optimizers
    from stepwise_jax.functional.recipe import Recipe
    from stepwise_jax.plans.planning import make_plan
    from stepwise_jax.plans.stage import Stage
    from stepwise_jax.report.report import write_report
    from stepwise_jax.training.background import in_background
    from stepwise_jax.training.train import train
    from stepwise_jax.workdir import loggers
    from stepwise_jax.workdir.record_file import read_records
    from stepwise_jax.workdir.records import Record

__version__ = "0.2.0"

_HOMES = {
    "CheckpointConfig": "stepwise_jax.experiment.config",
    "DataConfig": "stepwise_jax.experiment.config",
    "EvaluationConfig": "stepwise_jax.experiment.config",
    "ExperimentConfig": "stepwise_jax.experiment.config",
    "ModelConfig": "stepwise_jax.experiment.config",
    "LossConfig": "stepwise_jax.experiment.config",
    "OptimizerConfig": "stepwise_jax.experiment.config",
    "PlanConfig": "stepwise_jax.experiment.config",
    "StreamsConfig": "stepwise_jax.experiment.config",
    "load_config": "stepwise_jax.experiment.config_files",
    "Recipe": "stepwise_jax.functional.recipe",
    "Stage": "stepwise_jax.plans.stage",
    "make_plan": "stepwise_jax.plans.planning",
    "in_background": "stepwise_jax.training.background",
    "train": "stepwise_jax.training.train",
    "Record": "stepwise_jax.workdir.records",
    "read_records": "stepwise_jax.workdir.record_file",
    "write_report": "stepwise_jax.report.report",
    "InputError": "stepwise_jax.errors",
    "StepwiseError": "stepwise_jax.errors",
}
_MODULES = {
    **{name: f"stepwise_jax.functional.{name}" for name in ("augmentation", "losses", "metrics", "optimizers")},
    "datasets": "stepwise_jax.data.datasets",
    "loggers": "stepwise_jax.workdir.loggers",
}

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "InputError",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PlanConfig",
    "Recipe",
    "Record",
    "Stage",
    "StepwiseError",
    "StreamsConfig",
    "augmentation",
    "datasets",
    "in_background",
    "load_config",
    "loggers",
    "losses",
    "make_plan",
    "metrics",
    "optimizers",
    "read_records",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
