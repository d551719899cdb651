"""The budget of a schedule: the samples of the staged run, which it spends in whole epochs.

`plan.staged` is the paper's strategy or a user-defined one. Set O is the whole training set.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.stage import SET_NAMES, Stage, learning_rate_at
from stepwise_jax.plans.strategies import baseline, stepwise


def staged_run(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Return the stages of `plan.staged`."""
    return (plan.staged if callable(plan.staged) else stepwise)(plan, examples)


def staged_samples(plan: PlanConfig, examples: int) -> int:
    """Return the samples of the staged run."""
    return sum(stage.samples for stage in staged_run(plan, examples))


def staged_epochs(plan: PlanConfig, examples: int) -> int:
    """Return the epochs on set O that cost as many samples as the staged run, to the nearest, at least 1."""
    return max(1, round(staged_samples(plan, examples) / examples))


def whole_set(plan: PlanConfig, examples: int, epochs: int) -> Stage:
    """Return the baseline with another number of epochs; its milestones move in proportion."""
    return with_epochs(baseline(plan, examples)[0], epochs)


def on_whole_set(stage: Stage, examples: int, learning_rate: float) -> Stage:
    """Return the stage with all examples, at another rate."""
    whole = {"name": SET_NAMES[1.0], "fraction": 1.0, "examples": examples}
    return dataclasses.replace(stage, **whole, learning_rate=learning_rate)


def with_epochs(stage: Stage, epochs: int) -> Stage:
    """Return the stage with another number of epochs; its milestones move in proportion, and equal ones are merged."""
    scaled = {round(milestone * epochs / stage.epochs) for milestone in stage.milestones}
    within = tuple(sorted(milestone for milestone in scaled if 0 < milestone < epochs))
    return dataclasses.replace(stage, epochs=epochs, milestones=within, epoch_rates=None)


def with_rates(stage: Stage, rates: tuple[float, ...]) -> Stage:
    """Return the stage with a learning rate for each epoch."""
    return dataclasses.replace(stage, learning_rate=rates[0], milestones=(), warmup_epochs=0, epoch_rates=rates)


def mean_rate(stages: Sequence[Stage], start: float, end: float) -> float:
    """Return the mean learning rate between two shares, 0 to 1, of all samples of these stages."""
    total = sum(stage.samples for stage in stages)
    rates = [
        (learning_rate_at(stage, epoch), stage.examples) for stage in stages for epoch in range(1, stage.epochs + 1)
    ]
    edges = list(itertools.accumulate((size / total for _, size in rates), initial=0.0))
    parts = [
        (rate, min(end, right) - max(start, left))
        for (rate, _), (left, right) in zip(rates, itertools.pairwise(edges), strict=True)
        if min(end, right) - max(start, left) > 1e-9
    ]
    distinct = {rate for rate, _ in parts}
    if len(distinct) == 1:
        # The mean of equal numbers could differ from them by a rounding error, and would look like another rate.
        return distinct.pop()
    return sum(rate * share for rate, share in parts) / sum(share for _, share in parts)
