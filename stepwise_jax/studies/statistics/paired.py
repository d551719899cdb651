"""Paired statistics over seeds: how far a difference in accuracy between two strategies is significant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE, SIGNIFICANCE = 0.95, 0.05

_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval from `low` to `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The reference's accuracy minus another arm's, as fractions, over the seeds that both have."""

    other: str
    by_seed: Mapping[int, float]
    mean: float
    interval: Interval | None
    """Paired t interval over seeds; None for fewer than two seeds, or where all seeds differ by the same amount."""
    p: float | None
    """Of the two-sided paired t test; None for fewer than two seeds, or where all differ by the same nonzero amount."""
    p_holm: float | None
    """`p` with Holm's correction for all the arms that the reference is compared with."""
    image_interval: Interval | None
    """Percentile bootstrap over test images with the seeds held fixed: the sampling error of the test set."""

    @property
    def significant(self) -> bool:
        """Whether the seeds show a difference at the 5 % level, corrected for all comparisons together."""
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None instead of the latter for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def paired_differences(
    reference: Mapping[int, float],
    others: Mapping[str, Mapping[int, float]],
    correct: Mapping[str, Mapping[int, np.ndarray]],
    reference_correct: Mapping[int, np.ndarray],
) -> tuple[Difference, ...]:
    """Compare the reference with each other arm, seed by seed.

    Args:
      reference: the reference's accuracy by seed.
      others: the accuracies of the other arms, by name and seed; a seed that only one of the two has is left out.
      correct: by name and seed, whether each test image was classified correctly, bool [N], all in one order.
      reference_correct: the same for the reference.
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
            image_interval=_image_interval(reference_correct, correct.get(name, {}), list(pair)),
        )
        for name, pair in pairs.items()
        if pair
    )


def _paired(reference: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {seed: reference[seed] - other[seed] for seed in sorted(reference.keys() & other.keys())}


def _t_test(values: Sequence[float]) -> tuple[Interval | None, float | None]:
    """The confidence interval of the mean, and the p-value of the hypothesis that it is 0."""
    if len(values) < 2:
        return None, None
    mean = float(np.mean(values))
    if np.std(values) <= 1e-12:
        # Equal values leave no spread to estimate from: an interval of width 0 would claim certainty.
        return None, 1.0 if abs(mean) <= 1e-12 else None
    found = stats.ttest_1samp(values, 0.0)
    interval = found.confidence_interval(CONFIDENCE)
    return Interval(float(interval.low), float(interval.high)), float(found.pvalue)  # pyright: ignore


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979), which keeps the family-wise error rate below the significance level.

    None stands for a test that could not be made: it stays None and does not count.
    """
    made = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(made):
        highest = max(highest, min(1.0, (len(made) - rank) * p))
        corrected[index] = highest
    return corrected


def _image_interval(
    reference: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray], seeds: Sequence[int]
) -> Interval | None:
    shared = [seed for seed in seeds if seed in reference and seed in other]
    sizes = {len(correct[seed]) for correct in (reference, other) for seed in shared}
    if len(sizes) != 1:
        return None
    per_image = np.mean([reference[seed].astype(float) - other[seed] for seed in shared], axis=0)
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
