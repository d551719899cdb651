"""The budget of a schedule: the samples of the staged run, which it spends in whole epochs.

`plan.staged` is the paper's strategy or a user-defined one. Set O is the whole training set.
"""

import bisect
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

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
    """Return the stage with another number of epochs; its milestones move in proportion, and equal ones are merged.

    A warm-up leaves at least one epoch.
    """
    scaled = {round(milestone * epochs / stage.epochs) for milestone in stage.milestones}
    within = tuple(sorted(milestone for milestone in scaled if 0 < milestone < epochs))
    warmup = min(stage.warmup_epochs, epochs - 1)
    return dataclasses.replace(stage, epochs=epochs, milestones=within, warmup_epochs=warmup, epoch_rates=None)


def with_rates(stage: Stage, rates: tuple[float, ...]) -> Stage:
    """Return the stage with a learning rate for each epoch."""
    return dataclasses.replace(stage, learning_rate=rates[0], milestones=(), warmup_epochs=0, epoch_rates=rates)


def split_samples(sizes: Sequence[int], ends: Sequence[float], total: int) -> list[int]:
    """Return the epochs on subsets of these sizes, one after the other, that cost `total` samples, to the nearest.

    Args:
      sizes: examples of each subset.
      ends: samples at which each subset but the last should end. An end between two epochs moves to the nearest.
      total: samples in all, of which at least one epoch goes to the last subset.
    """
    epochs, done = [], 0
    for size, end in zip(sizes[:-1], ends, strict=True):
        epochs.append(max(0, round((min(end, total - sizes[-1]) - done) / size)))
        done += epochs[-1] * size
    return [*epochs, max(1, round((total - done) / sizes[-1]))]


def follow_rates(stages: Sequence[Stage], others: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages with the mean learning rate that other stages have over the same share of their samples."""
    curve, total, done, following = rate_curve(others), sum(stage.samples for stage in stages), 0, []
    for stage in stages:
        edges = [(done + epoch * stage.examples) / total for epoch in range(stage.epochs + 1)]
        following.append(_with_steps(stage, [curve.mean(*each) for each in itertools.pairwise(edges)]))
        done += stage.samples
    return tuple(following)


def _with_steps(stage: Stage, rates: Sequence[float]) -> Stage:
    """The stage with these rates: as milestones where each change is a decay."""
    changes = [epoch for epoch in range(1, len(rates)) if rates[epoch] != rates[epoch - 1]]
    if all(math.isclose(rates[epoch], stage.decay_factor * rates[epoch - 1]) for epoch in changes):
        steps = {"learning_rate": rates[0], "milestones": tuple(changes), "warmup_epochs": 0, "epoch_rates": None}
        return dataclasses.replace(stage, **steps)
    return with_rates(stage, tuple(rates))


def with_scaled_rate(stage: Stage, factor: float) -> Stage:
    """Return the stage with all of its learning rates multiplied."""
    rates = None if stage.epoch_rates is None else tuple(rate * factor for rate in stage.epoch_rates)
    return dataclasses.replace(stage, learning_rate=stage.learning_rate * factor, epoch_rates=rates)


class RateCurve(NamedTuple):
    """The learning rate of each epoch of some stages, over the shares of their samples."""

    edges: list[float]
    """Where each epoch starts, and the last one ends, from 0 to 1."""
    rates: list[float]

    def mean(self, start: float, end: float) -> float:
        """Return the mean learning rate between two shares of the samples."""
        parts = []
        for index in range(max(0, bisect.bisect_right(self.edges, start) - 1), len(self.rates)):
            if self.edges[index] >= end:
                break
            share = min(end, self.edges[index + 1]) - max(start, self.edges[index])
            if share > 1e-9:
                parts.append((self.rates[index], share))
        distinct = {rate for rate, _ in parts}
        if len(distinct) == 1:
            # The mean of equal numbers could differ from them by a rounding error, and would look like another rate.
            return distinct.pop()
        return sum(rate * share for rate, share in parts) / sum(share for _, share in parts)


def rate_curve(stages: Sequence[Stage]) -> RateCurve:
    """Return the learning rates of stages over the shares of their samples."""
    total = sum(stage.samples for stage in stages)
    epochs = [(stage, epoch) for stage in stages for epoch in range(1, stage.epochs + 1)]
    edges = list(itertools.accumulate((stage.examples / total for stage, _ in epochs), initial=0.0))
    return RateCurve(edges, [learning_rate_at(stage, epoch) for stage, epoch in epochs])
