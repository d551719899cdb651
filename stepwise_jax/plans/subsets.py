"""Schedules of the data: subsets that shrink or are redrawn, and staged runs whose weights shrink between stages."""

import dataclasses
import itertools
import math

from stepwise_jax.errors import require
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.budget import follow_rates, split_samples, staged_run, staged_samples
from stepwise_jax.plans.controls import equal_samples
from stepwise_jax.plans.stage import SET_NAMES, Stage


def falling(plan: PlanConfig, examples: int, *, keep: float = 0.8, stages: int = 5) -> tuple[Stage, ...]:
    """Train on gamma^(t-1) M examples in stage t, and on all in the last, at b and the rates of `equal_samples`.

    Sathiyanarayanan et al., "Progressive data dropout" (2025), arXiv 2505.22342: its scalar random dropout, which drops
    examples in every epoch and ends with a revision of all of them. Here a stage is several epochs, about as many in
    each, and the run has the samples of the staged run, where theirs saves samples. A smaller subset is the first part
    of a larger one, so dropped examples stay away until the last stage; `plan.draw` "redrawn" draws others in each
    epoch. Which of the two the paper means is not certain.

    Args:
      plan: the plan.
      examples: M.
      keep: gamma, the share of the examples that the next stage keeps.
      stages: their number, the last one included.
    """
    require(0 < keep < 1, "keep of falling", keep, "between 0 and 1")
    require(1 <= stages <= 1000, "stages of falling", stages, "from 1 to 1000")
    (whole,) = equal_samples(plan, examples)
    fractions = [*(keep**stage for stage in range(stages - 1)), 1.0]
    sizes = [math.ceil(round(fraction * examples, 6)) for fraction in fractions]
    total = staged_samples(plan, examples)
    ends = [total * end / sum(sizes) for end in itertools.accumulate(sizes[:-1])]
    planned = [
        on_subset(whole, fraction, size, epochs)
        for fraction, size, epochs in zip(fractions, sizes, split_samples(sizes, ends, total), strict=True)
        if epochs
    ]
    return follow_rates(planned, (whole,))


def redrawn(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train the staged run on M_i examples that are drawn anew from the whole set in each epoch.

    Okanovic et al., "Repeated random sampling" (2023), arXiv 2305.18424 (RS2), which keeps one size. The cost is the
    staged run's.
    """
    return tuple(dataclasses.replace(stage, draw="redrawn") for stage in staged_run(plan, examples))


def shrink_perturb(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Train the staged run, with 0.4 of the weights plus 0.1 of the initial ones after each stage.

    Ash and Adams, "On warm-starting neural network training" (2020), arXiv 1910.08475. What happens between stages is
    `plan.carry`, which must say so; a rule of one's own may have other factors.
    """
    shrinks = plan.carry == "shrink_perturb" or callable(plan.carry)
    require(shrinks, "plan.carry", plan.carry, "'shrink_perturb' with plan.strategy shrink_perturb")
    return staged_run(plan, examples)


def on_subset(whole: Stage, fraction: float, examples: int, epochs: int) -> Stage:
    """Return a stage of set O on a subset instead."""
    name = SET_NAMES.get(fraction, f"{100 * fraction:.3g}%")
    return dataclasses.replace(whole, name=name, fraction=fraction, examples=examples, epochs=epochs)
