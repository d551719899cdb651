"""What the paper's experiments share (Section IV-A): input, optimiser and plan are the defaults of the fields."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from stepwise_jax import DataConfig, ExperimentConfig, ModelConfig, PlanConfig

IMAGE_SIZE = 224
"""Pixels; CIFAR's 32 x 32 images are scaled up to it."""

RES2NET_WEIGHTS = "weights/res2net50_26w_4s.safetensors"
"""Where Section IV-C's experiments look for the ImageNet weights, from the folder that the command is run in."""

SETS = {"A": 0.2, "B": 0.4, "C": 0.6, "D": 0.8, "O": 1.0}
"""M_i / M of the paper's sets."""

EACH_SET_ALONE = {
    name: {"strategy": "single_set", "fractions": (fraction,), "batch_multipliers": (1.0,)}
    for name, fraction in SETS.items()
}
"""The rows "with set A" to "with set O": 20 epochs at b and lambda, no weights shared."""


def experiment(
    table: str, data: str, network: str, initial_weights: str | None = None, **plan: Any
) -> ExperimentConfig:
    """The step-wise row of a table: A, B, C, D, O for 20 epochs each, b = 24, lambda = 0.001, but for `plan`."""
    return ExperimentConfig(
        data=DataConfig(name=data, image_size=IMAGE_SIZE),
        model=ModelConfig(name=network, initial_weights=initial_weights),
        plan=PlanConfig(**plan),
        reproduces=f"{table}/stepwise",
    )


def rows(
    stepwise: ExperimentConfig, others: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, ExperimentConfig]:
    """The rows of a table by name: its baseline, its step-wise run, and others by what differs in their plan."""
    table = stepwise.reproduces.partition("/")[0]
    named = {"baseline": {"strategy": "baseline"}, "stepwise": {}, **(others or {})}
    return {name: row(stepwise, f"{table}/{name}", **plan) for name, plan in named.items()}


def row(config: ExperimentConfig, reproduces: str, **plan: Any) -> ExperimentConfig:
    """Another row: the same experiment with some fields of its plan replaced."""
    return dataclasses.replace(config, plan=dataclasses.replace(config.plan, **plan), reproduces=reproduces)
