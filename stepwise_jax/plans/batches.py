"""Schedules of the batch size on set O, the whole training set, with the samples of the staged run.

Those that grow the batch where the rate would drop replace the drops of `equal_samples`; the others keep its learning
rates. A batch is at most a tenth of the training set, or b.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal

from stepwise_jax.errors import require
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.budget import follow_rates, staged_samples, whole_set, with_scaled_rate
from stepwise_jax.plans.controls import cosine, equal_samples
from stepwise_jax.plans.stage import Stage, learning_rate_at


def batch_growth(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """Grow the batch by 1/gamma where `equal_samples` drops the rate by gamma.

    Smith et al., "Don't decay the learning rate, increase the batch size" (2017). As in that paper, the batch never
    exceeds a tenth of the training set; the rate drops by the rest.
    """
    (whole,) = equal_samples(plan, examples)
    sizes = [plan.batch_size * (1 / plan.decay_factor) ** drops for drops in range(len(whole.milestones) + 1)]
    return _grow(whole, (*whole.milestones, whole.epochs), sizes, [plan.learning_rate] * len(sizes))


def adabatch(plan: PlanConfig, examples: int, *, growth: float = 2.0, decay: float = 0.75) -> tuple[Stage, ...]:
    """Multiply the batch by 2 and the rate by 0.75 where `equal_samples` drops the rate.

    Devarakonda, Naumov and Garland, "AdaBatch" (2017), arXiv 1712.02029: twice the batch and 0.75 times the rate in
    place of 0.375 times the rate. The milestones are those of this plan, not of the paper. Where the batch is limited,
    the rate drops by the rest.

    Args:
      plan: the plan.
      examples: M.
      growth: factor of the batch size at each milestone, at least 1.
      decay: factor of the learning rate there.
    """
    require(growth >= 1, "growth of adabatch", growth, "at least 1")
    require(0 < decay <= 1, "decay of adabatch", decay, "above 0 and at most 1")
    (whole,) = equal_samples(plan, examples)
    drops = range(len(whole.milestones) + 1)
    sizes = [plan.batch_size * growth**drop for drop in drops]
    return _grow(whole, (*whole.milestones, whole.epochs), sizes, [plan.learning_rate * decay**drop for drop in drops])


def seesaw(
    plan: PlanConfig,
    examples: int,
    *,
    curve: Literal["equal_samples", "cosine"] = "equal_samples",
    optimizer: Literal["adam", "sgd"] = "adam",
    cut: float = 0.5,
) -> tuple[Stage, ...]:
    """Turn each drop of a rate curve by alpha into half a drop, sqrt(alpha), and a larger batch.

    Meterez et al., "Seesaw" (2025), arXiv 2510.14717. For Adam, whose model there is normalized SGD, the batch grows by
    1/alpha: the rate over the square root of the batch follows the curve. For SGD the rate over the batch does (their
    Theorem 1), so the batch grows by 1/sqrt(alpha). Where the batch is limited, the rate drops by the rest.

    Args:
      plan: the plan.
      examples: M.
      curve: the rate curve, that of `equal_samples` or of `cosine`.
      optimizer: adam, the paper's algorithm, or sgd.
      cut: a step is made whenever the curve has fallen to this share of its rate at the step before; the paper halves.
    """
    require(0 < cut < 1, "cut of seesaw", cut, "between 0 and 1")
    strategy = {"equal_samples": equal_samples, "cosine": cosine}[curve]
    (followed,) = strategy(dataclasses.replace(plan, warmup_epochs=0), examples)
    curve_rates = [learning_rate_at(followed, epoch) for epoch in range(1, followed.epochs + 1)]
    starts, drops = _drops(curve_rates, cut)
    whole, power = whole_set(plan, examples, followed.epochs), 0.5 if optimizer == "adam" else 1.0
    sizes = [min(round(plan.batch_size / drop ** (0.5 / power)), _largest_batch(whole)) for drop in drops]
    growths = [(size / plan.batch_size) ** power for size in sizes]
    rates = [curve_rates[0] * drop * growth for drop, growth in zip(drops, growths, strict=True)]
    return _grow(whole, (*starts[1:], whole.epochs), sizes, rates)


def critical_batch_warmup(
    plan: PlanConfig, examples: int, *, shares: tuple[float, ...] = (0.25, 0.5)
) -> tuple[Stage, ...]:
    """Double the batch, and multiply the rate by sqrt(2), at given shares of the run.

    Merrill et al., "Critical batch size revisited" (2025), arXiv 2505.23971: the batch doubles as the critical batch
    size grows, and the rate with the root of the batch, as OLMo-core's batch-size scheduler has it. Theirs are measured
    shares; the default shares here are not from the paper. The rate also drops as that of `equal_samples`.

    `plan.critical_batch` is a measured critical batch size: doubling stops below it. The samples of the pilot run that
    measured it, `plan.pilot_samples`, are charged: the run trains on so many fewer.

    Args:
      plan: the plan.
      examples: M.
      shares: rising shares of the samples, between 0 and 1.
    """
    inside = list(shares) == sorted(set(shares)) and all(0 < share < 1 for share in shares)
    require(inside, "shares of critical_batch_warmup", shares, "rising numbers between 0 and 1")
    whole = _after_pilot(plan, examples)
    largest = min(plan.critical_batch or _largest_batch(whole), examples)
    sizes = [plan.batch_size]
    for _ in shares:
        sizes.append(2 * sizes[-1] if 2 * sizes[-1] <= largest else sizes[-1])
    stages = follow_rates(_in_batches(whole, (*shares, 1.0), sizes), (whole,))
    return tuple(with_scaled_rate(stage, math.sqrt(stage.batch_size / plan.batch_size)) for stage in stages)


def cabs(plan: PlanConfig, examples: int, *, ratios: tuple[float, ...]) -> tuple[Stage, ...]:
    """Grow the batch with the noise of the gradients, b_i = lambda tr(Sigma_i) / L_i, at a constant rate.

    Balles, Romero and Hennig, "Coupling adaptive batch sizes with learning rates" (2017), arXiv 1612.05086. They take
    the ratio of the gradient's variance to the loss from training itself; here a pilot run has measured it (`--measure
    noise`), and the plan is decided before the run. Their rule is for SGD without momentum. A batch is b at least, and
    the samples of the pilot, `plan.pilot_samples`, are charged.

    Args:
      plan: the plan.
      examples: M.
      ratios: tr(Sigma) over the loss, in each of as many equal shares of the run.
    """
    require(all(0 < each < math.inf for each in ratios), "ratios of cabs", ratios, "positive numbers")
    whole = _after_pilot(plan, examples)
    sizes = [min(max(round(plan.learning_rate * each), plan.batch_size), _largest_batch(whole)) for each in ratios]
    first, *others = _in_batches(whole, [(part + 1) / len(ratios) for part in range(len(ratios))], sizes)
    first = dataclasses.replace(first, milestones=(), warmup_epochs=min(first.warmup_epochs, first.epochs - 1))
    return first, *(dataclasses.replace(stage, milestones=(), warmup_epochs=0) for stage in others)


def linear_ramp(plan: PlanConfig, examples: int, *, largest: int = 5) -> tuple[Stage, ...]:
    """Grow the batch linearly, b, 2b, 3b, ..., over equal shares of the run, at the rates of `equal_samples`.

    Args:
      plan: the plan.
      examples: M.
      largest: the last batch, in multiples of b.
    """
    require(1 <= largest <= 1000, "largest of linear_ramp", largest, "from 1 to 1000")
    (whole,) = equal_samples(plan, examples)
    multiples = range(1, largest + 1)
    limit = _largest_batch(whole)
    sizes = [min(plan.batch_size * multiple, limit) for multiple in multiples]
    return follow_rates(_in_batches(whole, [multiple / largest for multiple in multiples], sizes), (whole,))


def _after_pilot(plan: PlanConfig, examples: int) -> Stage:
    """Set O for the samples of the staged run that a pilot run has left."""
    budget = staged_samples(plan, examples)
    require(plan.pilot_samples < budget, "plan.pilot_samples", plan.pilot_samples, f"below {budget}, the staged run's")
    return whole_set(plan, examples, max(1, round((budget - plan.pilot_samples) / examples)))


def _largest_batch(whole: Stage) -> int:
    return max(whole.batch_size, whole.examples // 10)


def _grow(whole: Stage, ends: Sequence[int], sizes: Sequence[float], rates: Sequence[float]) -> tuple[Stage, ...]:
    """The stages that end after these epochs, with limited batches; only the first warms up."""
    largest, stages = _largest_batch(whole), []
    for start, end, size, rate in zip((0, *ends[:-1]), ends, sizes, rates, strict=True):
        limited, warmup = min(round(size), largest), min(whole.warmup_epochs, end - 1) if start == 0 else 0
        fields = {"batch_size": limited, "learning_rate": rate * limited / size, "epochs": end - start}
        stages.append(dataclasses.replace(whole, **fields, milestones=(), warmup_epochs=warmup))
    return tuple(stages)


def _in_batches(whole: Stage, shares: Sequence[float], sizes: Sequence[int]) -> list[Stage]:
    """The stages that end after these shares of the epochs, rounded down; those without an epoch are left out."""
    ends = [math.floor(whole.epochs * share + 1e-9) for share in shares]
    return [
        dataclasses.replace(whole, batch_size=size, epochs=end - start)
        for (start, end), size in zip(itertools.pairwise((0, *ends)), sizes, strict=True)
        if end > start
    ]


def _drops(rates: Sequence[float], cut: float) -> tuple[list[int], list[float]]:
    """The epochs before each step of a falling curve, and the share of its first rate that is left there."""
    starts, drops = [0], [1.0]
    for epoch, rate in enumerate(rates):
        if rate / rates[0] <= cut * drops[-1] * (1 + 1e-9):
            starts.append(epoch)
            drops.append(rate / rates[0])
    return starts, drops
