"""Strategies: pure functions from a `PlanConfig` and the number of training examples to a tuple of stages.

A researcher's own rule is one such function, named in a configuration file:

    def my_rule(plan: PlanConfig, examples: int) -> tuple[Stage, ...]: ...
    PlanConfig(strategy=my_rule)
"""

import contextlib
import dataclasses
import itertools
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stepwise_jax.config import LearningRateRule, OptimizerConfig, PlanConfig, require, type_matches, type_name
from stepwise_jax.errors import InputError

# The paper's letters for its five sets (Table I).
SET_NAMES = {0.2: "A", 0.4: "B", 0.6: "C", 0.8: "D", 1.0: "O"}


@dataclass(frozen=True)
class Stage:
    """One stage, decided before training; `learning_rate` is for the mean gradient, as Optax takes it."""

    name: str
    fraction: float
    """M_i / M."""
    examples: int
    """M_i."""
    batch_size: int
    """b_i."""
    learning_rate: float
    """lambda_i, before the first milestone."""
    epochs: int
    milestones: tuple[int, ...] = ()
    """Completed epochs of the stage after which the rate is multiplied by `decay_factor`."""
    decay_factor: float = 0.1
    momentum: float | None = None
    """None takes optimizer.momentum."""
    weight_decay: float | None = None
    """None takes optimizer.weight_decay."""

    @property
    def updates_per_epoch(self) -> int:
        """Optimiser steps in an epoch; a last batch that is not full is dropped."""
        return self.examples // self.batch_size

    @property
    def updates(self) -> int:
        """Optimiser steps in the stage."""
        return self.epochs * self.updates_per_epoch

    @property
    def samples(self) -> int:
        """The nominal cost, epochs x M_i."""
        return self.epochs * self.examples

    @property
    def noise_scale(self) -> float:
        """Eq. 10: G_i = lambda_i M_i / b_i, at the start of the stage."""
        return noise_scale(self, self.learning_rate)

    @property
    def noise_scale_exact(self) -> float:
        """Eq. 5: lambda_i (M_i / b_i - 1), at the start of the stage."""
        return self.learning_rate * (self.examples / self.batch_size - 1)


Strategy = Callable[[PlanConfig, int], tuple[Stage, ...]]


def noise_scale(stage: Stage, learning_rate: float) -> float:
    """Eq. 10 at a given rate: G_i = lambda_i M_i / b_i."""
    return learning_rate * stage.examples / stage.batch_size


def learning_rate_at(stage: Stage, epoch: int) -> float:
    """The learning rate during `epoch`, which counts from 1 within the stage."""
    decays = sum(milestone < epoch for milestone in stage.milestones)
    return stage.learning_rate * stage.decay_factor**decays


def learning_rates(
    rule: LearningRateRule, learning_rate: float, batch_size: int, batch_sizes: Sequence[int]
) -> tuple[float, ...]:
    """Eq. 9: lambda_i for each stage, in mean-gradient terms.

    Args:
      rule: which reading of Eq. 9 (its lambda' multiplies the *sum* of a batch's gradients in Eq. 7, so that its 1/b is
        the mean that Optax takes already: `eq9`), or one of the rules it is compared with.
      learning_rate: lambda.
      batch_size: b, the base batch size.
      batch_sizes: b_i of the n stages.
    """
    n = len(batch_sizes)
    if rule == "constant":
        return (learning_rate,) * n
    if rule == "linear_scaling":
        # Goyal et al., "Accurate, large minibatch SGD" (2017): the rate grows with the batch.
        return tuple(learning_rate * size / batch_sizes[0] for size in batch_sizes)
    if rule == "eq9_recursive":
        return _recursive_rates(learning_rate, n)
    eq9 = [learning_rate if i in (0, n - 1) else learning_rate / (10 * n) for i in range(n)]
    divisors = {"eq9": [1.0] * n, "eq9_literal": batch_sizes, "eq9_base_batch": [batch_size / b for b in batch_sizes]}
    return tuple(rate / divisor for rate, divisor in zip(eq9, divisors[rule], strict=True))


def _recursive_rates(learning_rate: float, n: int) -> tuple[float, ...]:
    """Eq. 9 with "lambda = lambda' for next i" at its word: each stage divides its predecessor's rate."""
    between = [learning_rate / (10 * n) ** i for i in range(max(n - 1, 1))]
    return (*between, between[-1])[:n]


def stepwise(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """The paper's strategy: nested, growing subsets, each with a batch size and a learning rate of its own."""
    batch_sizes = [_batch_size(plan, multiplier) for multiplier in plan.batch_multipliers]
    rates = learning_rates(plan.learning_rate_rule, plan.learning_rate, plan.batch_size, batch_sizes)
    return tuple(
        _stage(plan, examples, fraction, size, rate)
        for fraction, size, rate in zip(plan.fractions, batch_sizes, rates, strict=True)
    )


def single_set(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """One stage on the largest of `plan.fractions` at b and lambda: the rows "with set A" of Tables I and IV."""
    return (_stage(plan, examples, plan.fractions[-1], plan.batch_size, plan.learning_rate),)


def baseline(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Set O alone at b and lambda, with the baseline's epochs and decay: the first row of each table."""
    stage = _stage(plan, examples, 1.0, plan.batch_size, plan.learning_rate)
    milestones = tuple(range(plan.baseline_decay_every, plan.baseline_epochs, plan.baseline_decay_every))
    return (dataclasses.replace(stage, epochs=plan.baseline_epochs, milestones=milestones),)


STRATEGIES: dict[str, Strategy] = {"stepwise": stepwise, "single_set": single_set, "baseline": baseline}


def make_plan(plan: PlanConfig, optimizer: OptimizerConfig, examples: int) -> tuple[Stage, ...]:
    """The stages of a run on `examples` training examples, complete and checked.

    Raises:
      InputError: if the strategy fails, returns no stages, or a stage cannot be trained.
    """
    strategy = plan.strategy if callable(plan.strategy) else STRATEGIES[plan.strategy]
    stages = _call(strategy, plan, examples)
    for index, stage in enumerate(stages, start=1):
        _check(stage, index, examples)
    for index, (before, stage) in enumerate(itertools.pairwise(stages), start=2):
        name = f"examples of stage {index} ({stage.name})"
        require(before.examples <= stage.examples, name, stage.examples, f"at least {before.examples}, as before it")
    return tuple(_with_defaults(stage, optimizer) for stage in stages)


def _call(strategy: Strategy, plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    name = getattr(strategy, "__name__", "strategy")
    try:
        # What a strategy prints would stand before the document of --json.
        with contextlib.redirect_stdout(sys.stderr):
            stages = strategy(plan, examples)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"plan.strategy: {name}(plan, {examples}) failed: {type(error).__name__}: {error}") from error
    if not isinstance(stages, tuple) or not stages or not all(isinstance(stage, Stage) for stage in stages):
        raise InputError(f"plan.strategy: {name} returned {stages!r:.80}: it must return a tuple of at least one Stage")
    return stages


def _with_defaults(stage: Stage, optimizer: OptimizerConfig) -> Stage:
    momentum = optimizer.momentum if stage.momentum is None else stage.momentum
    weight_decay = optimizer.weight_decay if stage.weight_decay is None else stage.weight_decay
    return dataclasses.replace(stage, momentum=momentum, weight_decay=weight_decay)


def _check(stage: Stage, index: int, examples: int) -> None:
    def check(condition: bool, name: str, wanted: str) -> None:
        require(condition, f"{name} of stage {index} ({stage.name})", getattr(stage, name), wanted)

    for name, hint in typing.get_type_hints(Stage).items():
        check(type_matches(getattr(stage, name), hint), name, type_name(hint))
    for name in ("examples", "batch_size", "epochs"):
        check(getattr(stage, name) >= 1, name, "at least 1")
    check(0 < stage.fraction <= 1, "fraction", "above 0 and at most 1")
    check(stage.momentum is None or 0 <= stage.momentum < 1, "momentum", "at least 0 and below 1")
    check(stage.weight_decay is None or 0 <= stage.weight_decay < float("inf"), "weight_decay", "not negative")
    check(stage.examples <= examples, "examples", f"at most {examples}, the size of the training set")
    check(stage.batch_size <= stage.examples, "batch_size", f"at most {stage.examples}, the examples of the stage")
    check(0 < stage.learning_rate < float("inf"), "learning_rate", "a positive number")
    check(0 < stage.decay_factor <= 1, "decay_factor", "above 0 and at most 1")
    rising = all(0 < milestone < stage.epochs for milestone in stage.milestones)
    check(
        rising and sorted(set(stage.milestones)) == list(stage.milestones), "milestones", "growing, within its epochs"
    )


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


def stage_document(stage: Stage) -> dict[str, Any]:
    """A stage with its derived numbers, as plain data for files and screens."""
    derived = ("updates_per_epoch", "updates", "samples", "noise_scale", "noise_scale_exact")
    return {**dataclasses.asdict(stage), **{name: getattr(stage, name) for name in derived}}


def stage_from_document(document: dict[str, Any]) -> Stage:
    """The inverse of `stage_document`: how a resumed run gets its stages back.

    Raises:
      InputError: if a field is missing.
    """
    try:
        values = {item.name: document[item.name] for item in dataclasses.fields(Stage)}
    except (KeyError, TypeError) as error:
        raise InputError(f"a recorded stage does not fit this version of stepwise-jax: {error}") from error
    if isinstance(values["milestones"], list):
        values["milestones"] = tuple(values["milestones"])
    for name, hint in typing.get_type_hints(Stage).items():
        require(type_matches(values[name], hint), f"{name} of a recorded stage", values[name], type_name(hint))
    return Stage(**values)


def plan_document(stages: Sequence[Stage], baseline_stages: Sequence[Stage]) -> dict[str, Any]:
    """What `plan --json` prints: both plans, their cost, and the one relative to the other."""
    ours, theirs = _costs(stages), _costs(baseline_stages)
    return {
        **ours,
        "baseline": theirs,
        "relative_samples": ours["samples"] / theirs["samples"],
        "relative_updates": ours["updates"] / theirs["updates"],
    }


def _costs(stages: Sequence[Stage]) -> dict[str, Any]:
    return {
        "stages": [stage_document(stage) for stage in stages],
        "samples": sum(stage.samples for stage in stages),
        "updates": sum(stage.updates for stage in stages),
    }
