"""False alarms over several arms and several looks."""

from collections.abc import Sequence

from stepwise_jax.studies.statistics.student import SIGNIFICANCE


def holm(p_values: Sequence[float | None], looks: int = 1) -> list[float | None]:
    """Holm's step-down correction (1979), which keeps the family-wise error rate below the significance level.

    None stands for a test that could not be made: it stays None and does not count.

    Args:
      p_values: one for each arm.
      looks: planned looks at the results, over all of which the rate is kept (Bonferroni).
    """
    made = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(made):
        highest = max(highest, min(1.0, looks * (len(made) - rank) * p))
        corrected[index] = highest
    return corrected


def strictest_level(arms: int, looks: int = 1) -> float:
    """The level of the strictest test among `arms` arms at one of `looks` looks."""
    return SIGNIFICANCE / (arms * looks)


def false_alarm_bound(planned: int, taken: int) -> float:
    """The highest rate of false alarms after `taken` looks, of which `planned` were planned.

    A planned look has the level 5 % / `planned`. One beyond the plan has 5 % / its number, and adds to the rate: only
    what is planned keeps it at 5 %.
    """
    beyond = sum(1 / look for look in range(planned + 1, taken + 1))
    return SIGNIFICANCE * (min(taken, planned) / planned + beyond)
