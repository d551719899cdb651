"""Schedules of the image size."""

import dataclasses
import itertools
import math

from stepwise_jax.errors import require
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.budget import follow_rates
from stepwise_jax.plans.controls import equal_samples
from stepwise_jax.plans.stage import Stage


def progressive_size(
    plan: PlanConfig, examples: int, *, smallest: int, largest: int, stages: int = 4
) -> tuple[Stage, ...]:
    """Train on set O at b and the rates of `equal_samples`, with larger images in each stage.

    Tan and Le, "EfficientNetV2" (2021), arXiv 2104.00298: stage s of S, counted from 0, has images of
    smallest + (largest - smallest) (s + 1) / S pixels, rounded down, as their code has it; their Algorithm 1 has
    s / (S - 1), and so starts at the smallest. Their regularization, which grows too, is left out. The run has the
    samples of the staged run; smaller images cost less.

    Args:
      plan: the plan.
      examples: M.
      smallest: pixels that the first stage exceeds.
      largest: pixels of the last stage; scores always use `data.image_size`.
      stages: S, at most the epochs of the run.
    """
    require(1 <= smallest <= largest, "smallest of progressive_size", smallest, f"from 1 to the largest, {largest}")
    require(1 <= stages <= 1000, "stages of progressive_size", stages, "from 1 to 1000")
    (whole,) = equal_samples(plan, examples)
    enough = f"at most {whole.epochs}, the epochs of the run, so that each size has one"
    require(stages <= whole.epochs, "stages of progressive_size", stages, enough)
    ends = [math.floor(whole.epochs * stage / stages + 1e-9) for stage in range(stages + 1)]
    sizes = [smallest + (largest - smallest) * (stage + 1) // stages for stage in range(stages)]
    planned = [
        dataclasses.replace(whole, epochs=end - start, image_size=size)
        for (start, end), size in zip(itertools.pairwise(ends), sizes, strict=True)
    ]
    return follow_rates(planned, (whole,))
