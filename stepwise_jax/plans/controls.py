"""Control strategies: plans that differ from a staged run in one respect, at equal cost where possible.

The paper compares its staged run (60 M samples, 36 M/b updates) with one baseline of 100 M samples. Each control here
is matched to `plan.staged`, which is the paper's strategy or a user-defined one. Set O is the whole training set.
"""

import dataclasses
import itertools
import math

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.budget import (
    on_whole_set,
    rate_curve,
    staged_epochs,
    staged_run,
    whole_set,
    with_epochs,
    with_rates,
)
from stepwise_jax.plans.stage import Stage


def equal_samples(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at b and lambda for as many samples as the staged run, with the baseline's milestones rescaled."""
    return (whole_set(plan, examples, staged_epochs(plan, examples)),)


def equal_updates(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at b and lambda for as many updates as the staged run, to the nearest epoch."""
    updates = sum(stage.updates for stage in staged_run(plan, examples))
    return (whole_set(plan, examples, max(1, round(updates / max(examples // plan.batch_size, 1)))),)


def equal_samples_rate_curve(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at b for as many samples as the staged run, and follow that run's learning rate.

    Each epoch of O uses the staged run's mean learning rate over the same share of the samples. The two rates are equal
    where no stage and no milestone ends within the epoch, as under the paper's plan. A comparison with the staged run
    isolates the effect of growing data and batches from the effect of restarting the learning rate at each stage.
    """
    curve, epochs = rate_curve(staged_run(plan, examples)), staged_epochs(plan, examples)
    edges = [epoch / epochs for epoch in range(epochs + 1)]
    rates = tuple(curve.mean(start, end) for start, end in itertools.pairwise(edges))
    return (with_rates(whole_set(plan, examples, epochs), rates),)


def cosine(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at b for as many samples as the staged run, with cosine decay from lambda to 0.

    Loshchilov and Hutter, "SGDR" (2017), without restarts. Each epoch uses the value of the curve at its midpoint, and
    rises to it in the first `plan.warmup_epochs`.
    """
    epochs, warmup = staged_epochs(plan, examples), plan.warmup_epochs + 1
    shares = [(epoch + 0.5) / epochs for epoch in range(epochs)]
    rates = (plan.learning_rate * (1 + math.cos(math.pi * share)) / 2 for share in shares)
    rates = tuple(rate * min(1.0, epoch / warmup) for epoch, rate in enumerate(rates, start=1))
    return (with_rates(whole_set(plan, examples, epochs), rates),)


def last_stage(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train the last stage of the staged run alone, from the initial weights."""
    return staged_run(plan, examples)[-1:]


def constant_rate(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train the staged run with lambda in every stage: "keeping lambda constant" (Tables IV to VII)."""
    stages = staged_run(plan, examples)
    return tuple(dataclasses.replace(stage, learning_rate=plan.learning_rate, epoch_rates=None) for stage in stages)


def data_only(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train the staged run with b and lambda in every stage, so that only the data grows."""
    return tuple(dataclasses.replace(stage, batch_size=plan.batch_size) for stage in constant_rate(plan, examples))


def batch_only(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at lambda, with each batch size of the staged run for as many samples as in that run."""
    staged = staged_run(plan, examples)
    ends = [round(end / examples) for end in itertools.accumulate((stage.samples for stage in staged), initial=0)]
    stages = [
        with_epochs(on_whole_set(stage, examples, plan.learning_rate), epochs)
        for stage, epochs in zip(staged, (end - start for start, end in itertools.pairwise(ends)), strict=True)
        if epochs
    ]
    return tuple(stages) or equal_samples(plan, examples)
