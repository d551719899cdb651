"""Kept for configuration files that were written for version 0.1; new ones import from `stepwise_jax`."""

from stepwise_jax.experiment.config import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    PlanConfig,
)

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PlanConfig",
]
