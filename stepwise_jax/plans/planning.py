"""The plan of a run: the validated stages that a strategy returns.

A user-defined strategy is one pure function, named in a configuration file:

    def my_strategy(plan: PlanConfig, examples: int) -> tuple[Stage, ...]: ...
    PlanConfig(strategy=my_strategy)
"""

import contextlib
import dataclasses
import math
import sys
import traceback
import typing
from collections.abc import Sequence
from typing import Any

from stepwise_jax.errors import InputError, describe_error, require
from stepwise_jax.experiment.config import OptimizerConfig, PlanConfig
from stepwise_jax.experiment.fields import type_matches, type_name
from stepwise_jax.plans.registry import find_strategy
from stepwise_jax.plans.stage import Stage, stage_to_dict
from stepwise_jax.plans.strategies import Strategy


def make_plan(plan: PlanConfig, examples: int, optimizer: OptimizerConfig | None = None) -> tuple[Stage, ...]:
    """Return the stages of a run on `examples` training examples, validated and with the optimizer's defaults.

    Of an experiment, `datasets.sizes(experiment.data).train` is the number of examples.

    Raises:
      InputError: if there is no such strategy, it fails or returns no stages, or a stage cannot be trained.
    """
    strategy = plan.strategy if callable(plan.strategy) else find_strategy(plan.strategy)
    stages = _call_strategy(strategy, plan, examples)
    for index, stage in enumerate(stages, start=1):
        _check_stage(stage, index, examples)
    return tuple(_with_defaults(stage, optimizer or OptimizerConfig()) for stage in stages)


def _call_strategy(strategy: Strategy, plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    name = getattr(strategy, "__name__", plan.strategy if isinstance(plan.strategy, str) else "strategy")
    try:
        # Keep what a strategy prints out of the JSON document on stdout.
        with contextlib.redirect_stdout(sys.stderr):
            stages = strategy(plan, examples)
    except (InputError, KeyboardInterrupt):
        raise
    # SystemExit among others: whatever a user's function raises is its own error.
    except BaseException as error:
        reason = f"{_find_line(error, strategy)}{describe_error(error)}"
        raise InputError(f"plan.strategy: {name}(plan, {examples}) failed: {reason}") from error
    if not isinstance(stages, tuple) or not stages or not all(isinstance(stage, Stage) for stage in stages):
        raise InputError(f"plan.strategy: {name} returned {stages!r:.80}: it must return a tuple of at least one Stage")
    return stages


def _find_line(error: BaseException, strategy: Strategy) -> str:
    """The last line of the strategy's file on the way to an error: `line 3 of mine.py: `."""
    file = getattr(getattr(strategy, "__code__", None), "co_filename", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"line {lines[-1]} of {file}: " if lines else ""


def _with_defaults(stage: Stage, optimizer: OptimizerConfig) -> Stage:
    if callable(optimizer.name):
        # A function has defaults of its own.
        return stage
    momentum = optimizer.momentum if stage.momentum is None else stage.momentum
    weight_decay = optimizer.weight_decay if stage.weight_decay is None else stage.weight_decay
    return dataclasses.replace(stage, momentum=momentum, weight_decay=weight_decay)


def _check_stage(stage: Stage, index: int, examples: int) -> None:
    def check(condition: bool, name: str, requirement: str) -> None:
        require(condition, f"{name} of stage {index} ({stage.name})", getattr(stage, name), requirement)

    for name, hint in typing.get_type_hints(Stage).items():
        check(type_matches(getattr(stage, name), hint), name, type_name(hint))
    for name in ("examples", "batch_size", "epochs"):
        check(getattr(stage, name) >= 1, name, "at least 1")
    check(0 < stage.fraction <= 1, "fraction", "above 0 and at most 1")
    check(stage.momentum is None or 0 <= stage.momentum < 1, "momentum", "at least 0 and below 1")
    check(stage.weight_decay is None or 0 <= stage.weight_decay < float("inf"), "weight_decay", "not negative")
    check(stage.examples <= examples, "examples", f"at most {examples}, the size of the training set")
    check(stage.batch_size <= stage.examples, "batch_size", f"at most {stage.examples}, the examples in the stage")
    check(0 < stage.learning_rate < float("inf"), "learning_rate", "a positive number")
    check(0 < stage.decay_factor <= 1, "decay_factor", "above 0 and at most 1")
    rates = stage.epoch_rates
    fits = rates is None or (len(rates) == stage.epochs and all(0 < rate < float("inf") for rate in rates))
    check(fits, "epoch_rates", f"{stage.epochs} positive numbers, one for each epoch")
    check(rates is None or not stage.milestones, "milestones", "empty if epoch_rates is set")
    check(rates is None or rates[0] == stage.learning_rate, "learning_rate", "equal to the first of epoch_rates")
    within = all(0 < milestone < stage.epochs for milestone in stage.milestones)
    rising = sorted(set(stage.milestones)) == list(stage.milestones)
    check(0 <= stage.warmup_epochs < stage.epochs, "warmup_epochs", f"from 0 to {stage.epochs - 1}")
    check(rates is None or not stage.warmup_epochs, "warmup_epochs", "0 if epoch_rates is set")
    check(stage.image_size is None or 1 <= stage.image_size <= 8192, "image_size", "from 1 to 8192 pixels")
    divides = stage.microbatches >= 1 and stage.batch_size % stage.microbatches == 0
    check(divides, "microbatches", f"a divisor of batch_size, which is {stage.batch_size}")
    finite = all(math.isfinite(value) for value in stage.hyperparameters.values())
    check(finite, "hyperparameters", "names with finite numbers")
    check(within and rising, "milestones", f"rising numbers between 0 and {stage.epochs}, the epochs of the stage")


def plan_to_dict(stages: Sequence[Stage], baseline_stages: Sequence[Stage]) -> dict[str, Any]:
    """The JSON document of `plan --json`: both plans, their costs, and the cost relative to the baseline's."""
    plan, baseline = _stages_and_cost(stages), _stages_and_cost(baseline_stages)
    return {
        **plan,
        "baseline": baseline,
        "relative_samples": plan["samples"] / baseline["samples"],
        "relative_updates": plan["updates"] / baseline["updates"],
    }


def _stages_and_cost(stages: Sequence[Stage]) -> dict[str, Any]:
    return {
        "stages": [stage_to_dict(stage) for stage in stages],
        "samples": sum(stage.samples for stage in stages),
        "updates": sum(stage.updates for stage in stages),
    }
