"""The paper's strategies: pure functions of a `PlanConfig` and the number of examples that return stages."""

import dataclasses
from collections.abc import Callable

from stepwise_jax.errors import require
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.learning_rates import learning_rates
from stepwise_jax.plans.stage import SET_NAMES, Stage

Strategy = Callable[[PlanConfig, int], tuple[Stage, ...]]


def stepwise(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on nested, growing subsets, each with its batch size and learning rate: the paper's strategy."""
    batch_sizes = [_batch_size(plan, multiplier) for multiplier in plan.batch_multipliers]
    rates = learning_rates(plan.learning_rate_rule, plan.learning_rate, plan.batch_size, batch_sizes)
    return tuple(
        _stage(plan, examples, fraction, size, rate, index)
        for index, (fraction, size, rate) in enumerate(zip(plan.fractions, batch_sizes, rates, strict=True))
    )


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


def _stage(
    plan: PlanConfig, examples: int, fraction: float, batch_size: int, learning_rate: float, index: int = -1
) -> Stage:
    """A stage with the options of the `index`-th, by default of the last."""
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
        warmup_epochs=plan.warmup_epochs,
        image_size=plan.image_sizes[index] if plan.image_sizes else None,
        microbatches=plan.microbatches[index] if plan.microbatches else 1,
        draw=plan.draw,
    )
