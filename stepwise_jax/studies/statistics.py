"""Paired statistics of strategies over seeds: what one can say, and what one cannot, of a difference in accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE, SIGNIFICANCE = 0.95, 0.05

_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, with 95 % confidence."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The reference's accuracy minus another strategy's, over the seeds that both have; fractions."""

    other: str
    by_seed: Mapping[int, float]
    mean: float
    interval: Interval | None
    """Paired t interval over seeds; None for fewer than two, and where all seeds differ by the same."""
    p: float | None
    """Of the two-sided paired t test; None for fewer than two seeds, and where all differ by the same but not by 0."""
    p_holm: float | None
    """`p` with Holm's correction for all the strategies that the reference is compared with."""
    image_interval: Interval | None
    """Percentile bootstrap over test images, seeds as they are: the sampling error of the test set."""

    @property
    def shown(self) -> bool:
        """Whether the seeds show a difference at the 5 % level, all comparisons taken together."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, the latter None for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def differences(
    reference: Mapping[int, float],
    others: Mapping[str, Mapping[int, float]],
    right: Mapping[str, Mapping[int, np.ndarray]],
    reference_right: Mapping[int, np.ndarray],
) -> tuple[Difference, ...]:
    """The reference against each other strategy.

    Args:
      reference: the reference's accuracy by seed.
      others: those of the other strategies, by name and seed; a seed that only one of the two has is left out.
      right: by name and seed, whether each test image was classified rightly, bool [N], in one order of images.
      reference_right: the same of the reference.
    """
    pairs = {name: _paired(reference, scores) for name, scores in others.items()}
    tested = {name: _t_test(list(pair.values())) for name, pair in pairs.items() if pair}
    corrected = dict(zip(tested, holm([p for _, p in tested.values()]), strict=True))
    return tuple(
        Difference(
            other=name,
            by_seed=pair,
            mean=float(np.mean(list(pair.values()))),
            interval=tested[name][0],
            p=tested[name][1],
            p_holm=corrected[name],
            image_interval=_over_images(reference_right, right.get(name, {}), list(pair)),
        )
        for name, pair in pairs.items()
        if pair
    )


def _paired(reference: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {seed: reference[seed] - other[seed] for seed in sorted(reference.keys() & other.keys())}


def _t_test(values: Sequence[float]) -> tuple[Interval | None, float | None]:
    """The interval of the mean, and p of the test that it is 0."""
    if len(values) < 2:
        return None, None
    mean = float(np.mean(values))
    if np.std(values) <= 1e-12:
        # All the same, they leave nothing to estimate from: an interval of no width would claim certainty.
        return None, 1.0 if abs(mean) <= 1e-12 else None
    found = stats.ttest_1samp(values, 0.0)
    interval = found.confidence_interval(CONFIDENCE)
    return Interval(float(interval.low), float(interval.high)), float(found.pvalue)  # pyright: ignore


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979): the chance of any false alarm in the family stays below the level.

    Tests that could not be made (None) stay so, and do not count.
    """
    made = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(made):
        highest = max(highest, min(1.0, (len(made) - rank) * p))
        corrected[place] = highest
    return corrected


def _over_images(
    reference: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray], seeds: Sequence[int]
) -> Interval | None:
    known = [seed for seed in seeds if seed in reference and seed in other]
    if not known or {len(rights[seed]) for rights in (reference, other) for seed in known} != {
        len(reference[known[0]])
    }:
        return None
    per_image = np.mean([reference[seed].astype(float) - other[seed] for seed in known], axis=0)
    if len(per_image) < 2 or np.ptp(per_image) == 0:
        return None
    found = stats.bootstrap(
        (per_image,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=50,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))
