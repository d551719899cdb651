"""The paper's strategies: pure functions of a `PlanConfig` and the number of examples that return stages."""

import dataclasses
from collections.abc import Callable
from typing import Any

from stepwise_jax.errors import require
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.learning_rates import learning_rates
from stepwise_jax.plans.stage import SET_NAMES, Stage

Strategy = Callable[[PlanConfig, int], tuple[Stage, ...]]


def stepwise(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on nested, growing subsets, each with its batch size and learning rate: the paper's strategy."""
    batch_sizes = [_batch_size(plan, multiplier) for multiplier in plan.batch_multipliers]
    rates = learning_rates(plan.learning_rate_rule, plan.learning_rate, plan.batch_size, batch_sizes)
    stages = tuple(
        _stage(plan, examples, fraction, size, rate)
        for fraction, size, rate in zip(plan.fractions, batch_sizes, rates, strict=True)
    )
    return tuple(dataclasses.replace(stage, **options) for stage, options in zip(stages, _options(plan), strict=True))


def _options(plan: PlanConfig) -> list[dict[str, Any]]:
    """The fields of each stage that the paper does not have."""
    n = len(plan.fractions)
    sizes, parts = plan.image_sizes or (None,) * n, plan.microbatches or (1,) * n
    common = {"warmup_epochs": plan.warmup_epochs, "draw": plan.draw}
    return [{"image_size": size, "microbatches": part, **common} for size, part in zip(sizes, parts, strict=True)]


def single_set(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train one stage on the largest of `plan.fractions` at b and lambda: rows like "with set A" of Tables I and IV."""
    return (_stage(plan, examples, plan.fractions[-1], plan.batch_size, plan.learning_rate),)


def baseline(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O alone at b and lambda, with the baseline's epochs and decay: the first row of each table."""
    stage = _stage(plan, examples, 1.0, plan.batch_size, plan.learning_rate)
    milestones = tuple(range(plan.baseline_decay_every, plan.baseline_epochs, plan.baseline_decay_every))
    return (dataclasses.replace(stage, epochs=plan.baseline_epochs, milestones=milestones),)


def _batch_size(plan: PlanConfig, multiplier: float) -> int:
    size = plan.batch_size * multiplier
    whole = abs(size - round(size)) < 1e-9 and round(size) >= 1
    require(whole, "plan.batch_multipliers", multiplier, f"such that {plan.batch_size} times it is a whole batch size")
    return round(size)


def _stage(plan: PlanConfig, examples: int, fraction: float, batch_size: int, learning_rate: float) -> Stage:
    epochs = plan.epochs_per_stage
    milestones = plan.milestones or tuple(range(plan.decay_every, epochs, plan.decay_every))
    return Stage(
        name=SET_NAMES.get(fraction, f"{100 * fraction:g}%"),
        fraction=fraction,
        examples=round(fraction * examples),
        batch_size=batch_size,
        learning_rate=learning_rate,
        epochs=epochs,
        milestones=milestones,
        decay_factor=plan.decay_factor,
    )
