"""The common settings of the paper's experiments (Section IV-A); all others are the defaults of the fields."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stepwise_jax import DataConfig, ExperimentConfig, ModelConfig, PlanConfig

IMAGE_SIZE = 224
"""Pixels; CIFAR's 32 x 32 images are scaled up to this size."""

RES2NET_WEIGHTS = "weights/res2net50_26w_4s.safetensors"
"""Path of the ImageNet weights for Section IV-C, relative to the working directory."""

SETS = {"A": 0.2, "B": 0.4, "C": 0.6, "D": 0.8, "O": 1.0}
"""M_i / M of the paper's sets."""

EACH_SET_ALONE = {
    name: {"strategy": "single_set", "fractions": (fraction,), "batch_multipliers": (1.0,)}
    for name, fraction in SETS.items()
}
"""The rows "with set A" to "with set O": 20 epochs at b and lambda, without weight sharing."""


def experiment(
    table: str, data: str, network: str, initial_weights: str | None = None, **plan: Any
) -> ExperimentConfig:
    """Return the step-wise row of a table: A, B, C, D, O, 20 epochs each, b = 24, lambda = 0.001; `plan` overrides."""
    return ExperimentConfig(
        data=DataConfig(name=data, image_size=IMAGE_SIZE),
        model=ModelConfig(name=network, initial_weights=initial_weights),
        plan=PlanConfig(**plan),
        reproduces=f"{table}/stepwise",
    )


def rows(
    stepwise: ExperimentConfig, others: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, ExperimentConfig]:
    """Return the rows of a table by name: baseline, stepwise, and `others`, given by the plan fields that differ."""
    table = stepwise.reproduces.partition("/")[0]
    named = {"baseline": {"strategy": "baseline"}, "stepwise": {}, **(others or {})}
    return {name: row(stepwise, f"{table}/{name}", **plan) for name, plan in named.items()}


def row(config: ExperimentConfig, reproduces: str, **plan: Any) -> ExperimentConfig:
    """Return another row: the same experiment with some fields of its plan replaced."""
    return dataclasses.replace(config, plan=dataclasses.replace(config.plan, **plan), reproduces=reproduces)
