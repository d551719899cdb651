"""Paced data: random subsets that grow by one of six forms."""

import math
from typing import Literal

from stepwise_jax.errors import require
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.budget import follow_rates, split_samples, staged_samples
from stepwise_jax.plans.controls import equal_samples
from stepwise_jax.plans.stage import Stage
from stepwise_jax.plans.subsets import on_subset

Form = Literal["linear", "quadratic", "root", "step", "exponential", "logarithmic"]


def pacing(
    plan: PlanConfig,
    examples: int,
    *,
    form: Form = "linear",
    full_after: float = 0.8,
    start: float = 0.2,
    levels: int = 8,
) -> tuple[Stage, ...]:
    """Grow the data from `start` to all of it at share `full_after` of the run, at b and the rates of `equal_samples`.

    Wu, Dyer and Neyshabur, "When do curricula work?" (2021), arXiv 2012.03107, with random order among their curricula.
    At share t of the run, and u = t / full_after, the data is start + (1 - start) p(u) of the set, where p is u, u^2,
    u^(1/2), 0 below u = 1, (e^10u - 1) / (e^10 - 1), or 1 + log(u + e^-10) / 10. Here it is rounded down to one of
    `levels` + 1 sizes, and a size ends with an epoch. The run has the samples of the staged run.

    Args:
      plan: the plan.
      examples: M.
      form: of the growth.
      full_after: a, the share of the run after which all examples are used.
      start: b, the share of the examples at the start.
      levels: steps from the first size to the whole set.
    """
    require(0 < full_after <= 1, "full_after of pacing", full_after, "above 0 and at most 1")
    require(0 < start < 1, "start of pacing", start, "between 0 and 1")
    require(1 <= levels <= 1000, "levels of pacing", levels, "from 1 to 1000")
    (whole,) = equal_samples(plan, examples)
    fractions = [round(start + (1 - start) * level / levels, 12) for level in range(levels + 1)]
    sizes = [max(1, round(fraction * examples)) for fraction in fractions]
    enough = f"enough of {examples} examples for a batch of {plan.batch_size}"
    require(plan.batch_size <= sizes[0], "start of pacing", start, enough)
    total = staged_samples(plan, examples)
    ends = [full_after * share_when_reached(form, level / levels) * total for level in range(1, levels + 1)]
    stages = [
        on_subset(whole, fraction, size, epochs)
        for fraction, size, epochs in zip(fractions, sizes, split_samples(sizes, ends, total), strict=True)
        if epochs
    ]
    return follow_rates(stages, (whole,))


def share_when_reached(form: Form, progress: float) -> float:
    """Return the share u of the growth's time after which its progress p(u), from 0 to 1, has this value."""
    if form == "step":
        return 1.0
    if form == "exponential":
        return math.log1p(progress * math.expm1(10)) / 10
    if form == "logarithmic":
        return math.exp(10 * (progress - 1)) - math.exp(-10)
    return progress ** {"linear": 1.0, "quadratic": 0.5, "root": 2.0}[form]
