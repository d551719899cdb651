"""The paper's strategies: pure functions from a `PlanConfig` and the number of examples to a tuple of stages."""

import dataclasses
from collections.abc import Callable, Sequence

from stepwise_jax.errors import require
from stepwise_jax.experiment.config import LearningRateRule, PlanConfig
from stepwise_jax.stage import SET_NAMES, Stage

Strategy = Callable[[PlanConfig, int], tuple[Stage, ...]]


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
