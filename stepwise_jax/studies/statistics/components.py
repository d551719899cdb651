"""Components of variance: how much each stream of random numbers contributes to the spread of the scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from stepwise_jax.studies.statistics.student import SIGNIFICANCE, Interval


@dataclass(frozen=True)
class Component:
    """The variance of the scores where one stream varies and the others are held."""

    stream: str
    runs: int
    variance: float | None
    """None for fewer than two runs."""
    interval: Interval | None
    """Of the variance, from the chi-square distribution of normal scores; None where the variance is None or 0."""
    share: float | None
    """Of the sum of all variances; None where that is unknown or 0."""

    @property
    def deviation(self) -> float | None:
        """The standard deviation, in the unit of the scores."""
        return None if self.variance is None else math.sqrt(self.variance)


def variance_components(scores: Mapping[str, Sequence[float]]) -> tuple[Component, ...]:
    """The variance that each stream contributes.

    Args:
      scores: by stream, one score for each run that varies this stream alone.

    Returns:
      In the order of `scores`. Shares are of the sum over streams, which leaves out their interactions.
    """
    variances = {stream: float(np.var(values, ddof=1)) for stream, values in scores.items() if len(values) > 1}
    total = sum(variances.values()) if len(variances) == len(scores) else 0.0
    return tuple(
        Component(
            stream,
            len(values),
            variances.get(stream),
            _interval(variances.get(stream, 0.0), len(values)),
            variances[stream] / total if total > 0 else None,
        )
        for stream, values in scores.items()
    )


def _interval(variance: float, runs: int) -> Interval | None:
    if variance <= 0:
        return None
    freedom = runs - 1
    low, high = (scipy.special.chdtri(freedom, tail) for tail in (SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2))
    return Interval(freedom * variance / float(low), freedom * variance / float(high))
