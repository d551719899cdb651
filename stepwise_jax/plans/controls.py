"""Control strategies: plans that differ from a staged run in one respect, at equal cost where possible.

The paper compares its staged run (60 M samples, 36 M/b updates) with one baseline of 100 M samples. Each control here
is matched to `plan.staged`, which is the paper's strategy or a user-defined one. Set O is the whole training set.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.stage import SET_NAMES, Stage, learning_rate_at
from stepwise_jax.plans.strategies import Strategy, baseline, stepwise


def equal_samples(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at b and lambda for as many samples as the staged run, with the baseline's milestones rescaled."""
    return (_whole_set(plan, examples, _equal_sample_epochs(plan, examples)),)


def equal_updates(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at b and lambda for as many updates as the staged run, to the nearest epoch."""
    updates = sum(stage.updates for stage in _staged(plan, examples))
    return (_whole_set(plan, examples, max(1, round(updates / max(examples // plan.batch_size, 1)))),)


def equal_samples_rate_curve(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at b for as many samples as the staged run, and follow that run's learning rate.

    Each epoch of O uses the staged run's mean learning rate over the same share of the samples. The two rates are equal
    where no stage and no milestone ends within the epoch, as under the paper's plan. A comparison with the staged run
    isolates the effect of growing data and batches from the effect of restarting the learning rate at each stage.
    """
    staged, epochs = _staged(plan, examples), _equal_sample_epochs(plan, examples)
    edges = [epoch / epochs for epoch in range(epochs + 1)]
    rates = tuple(_mean_rate(staged, start, end) for start, end in itertools.pairwise(edges))
    return (_with_rates(_whole_set(plan, examples, epochs), rates),)


def cosine(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at b for as many samples as the staged run, with cosine decay from lambda to 0.

    Loshchilov and Hutter, "SGDR" (2017), without restarts. Each epoch uses the value of the curve at its midpoint.
    """
    epochs = _equal_sample_epochs(plan, examples)
    shares = [(epoch + 0.5) / epochs for epoch in range(epochs)]
    rates = tuple(plan.learning_rate * (1 + math.cos(math.pi * share)) / 2 for share in shares)
    return (_with_rates(_whole_set(plan, examples, epochs), rates),)


def last_stage(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train the last stage of the staged run alone, from the initial weights."""
    return _staged(plan, examples)[-1:]


def constant_rate(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train the staged run with lambda in every stage: "keeping lambda constant" (Tables IV to VII)."""
    stages = _staged(plan, examples)
    return tuple(dataclasses.replace(stage, learning_rate=plan.learning_rate, epoch_rates=None) for stage in stages)


def data_only(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train the staged run with b and lambda in every stage, so that only the data grows."""
    return tuple(dataclasses.replace(stage, batch_size=plan.batch_size) for stage in constant_rate(plan, examples))


def batch_only(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O at lambda, with each batch size of the staged run for as many samples as in that run."""
    staged = _staged(plan, examples)
    ends = [round(end / examples) for end in itertools.accumulate((stage.samples for stage in staged), initial=0)]
    stages = [
        _lasting(_on_whole_set(stage, examples, plan.learning_rate), epochs)
        for stage, epochs in zip(staged, (end - start for start, end in itertools.pairwise(ends)), strict=True)
        if epochs
    ]
    return tuple(stages) or equal_samples(plan, examples)


def batch_growth(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train on set O for as many samples as the staged run, and grow the batch where `equal_samples` drops the rate.

    The batch size is multiplied by 1/gamma each time: Smith et al., "Don't decay the learning rate, increase the batch
    size" (2017). As in that paper, it never exceeds a tenth of the training set; the rate drops by the rest.
    """
    (whole,) = equal_samples(plan, examples)
    largest = max(plan.batch_size, examples // 10)
    stages, edges = [], (0, *whole.milestones, whole.epochs)
    for drops, (start, end) in enumerate(itertools.pairwise(edges)):
        unlimited = plan.batch_size * (1 / plan.decay_factor) ** drops
        size = min(round(unlimited), largest)
        stages.append(
            dataclasses.replace(
                whole,
                batch_size=size,
                learning_rate=whole.learning_rate * size / unlimited,
                epochs=end - start,
                milestones=(),
            )
        )
    return tuple(stages)


CONTROLS: dict[str, Strategy] = {
    "equal_samples": equal_samples,
    "equal_samples_rate_curve": equal_samples_rate_curve,
    "equal_updates": equal_updates,
    "last_stage": last_stage,
    "constant_rate": constant_rate,
    "data_only": data_only,
    "batch_only": batch_only,
    "batch_growth": batch_growth,
    "cosine": cosine,
}


def _staged(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    return (plan.staged if callable(plan.staged) else stepwise)(plan, examples)


def _equal_sample_epochs(plan: PlanConfig, examples: int) -> int:
    return max(1, round(sum(stage.samples for stage in _staged(plan, examples)) / examples))


def _whole_set(plan: PlanConfig, examples: int, epochs: int) -> Stage:
    """The baseline with another number of epochs; its milestones move in proportion."""
    return _lasting(baseline(plan, examples)[0], epochs)


def _on_whole_set(stage: Stage, examples: int, learning_rate: float) -> Stage:
    whole = {"name": SET_NAMES[1.0], "fraction": 1.0, "examples": examples}
    return dataclasses.replace(stage, **whole, learning_rate=learning_rate)


def _lasting(stage: Stage, epochs: int) -> Stage:
    """The stage with another number of epochs; its milestones move in proportion, and equal ones are merged."""
    scaled = {round(milestone * epochs / stage.epochs) for milestone in stage.milestones}
    within = tuple(sorted(milestone for milestone in scaled if 0 < milestone < epochs))
    return dataclasses.replace(stage, epochs=epochs, milestones=within, epoch_rates=None)


def _with_rates(stage: Stage, rates: tuple[float, ...]) -> Stage:
    return dataclasses.replace(stage, learning_rate=rates[0], milestones=(), epoch_rates=rates)


def _mean_rate(stages: Sequence[Stage], start: float, end: float) -> float:
    """The mean learning rate between two shares, 0 to 1, of all samples of these stages."""
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
