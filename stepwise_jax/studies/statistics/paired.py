"""Paired comparisons over seeds: whether a strategy is better, worse, equivalent, or not decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stepwise_jax.studies.statistics.images import crossed_interval, image_interval
from stepwise_jax.studies.statistics.multiplicity import holm, strictest_level
from stepwise_jax.studies.statistics.power import seeds_to_decide
from stepwise_jax.studies.statistics.sign_flip import sign_flip_p
from stepwise_jax.studies.statistics.student import (
    SIGNIFICANCE,
    Interval,
    difference_p,
    equivalence_p,
    mean_and_deviation,
    spread,
    t_interval,
)

Verdict = Literal["better", "worse", "equivalent", "not decided"]

DEFAULT_MARGIN = 0.01


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
    """`p` with Holm's correction for all the arms that the reference is compared with, and for the looks."""
    image_interval: Interval | None
    """Percentile bootstrap over test images with the seeds held fixed: the sampling error of the test set."""
    margin: float = DEFAULT_MARGIN
    """The largest difference, as a fraction, that counts as none."""
    looks: int = 1
    """The number of looks over which intervals and corrected p-values hold together."""
    p_equivalent: float | None = None
    """Of two one-sided tests against the margin, corrected like `p_holm`."""
    p_sign_flip: float | None = None
    """Of the sign-flip test of a difference, corrected like `p_holm`; shown beside it, and decides nothing."""
    crossed_interval: Interval | None = None
    """Over other seeds and other test images together."""
    seeds_to_decide: int | None = None
    """How many seeds in all decide, with one look more; None for too many, and where `interval` is None."""

    @property
    def verdict(self) -> Verdict:
        """What the reference is beside the other arm.

        A difference that is shown to be within the margin is equivalent, also where it is not 0.
        """
        if self.p_equivalent is not None and self.p_equivalent < SIGNIFICANCE:
            return "equivalent"
        if self.p_holm is None or self.p_holm >= SIGNIFICANCE:
            return "not decided"
        return "better" if self.mean > 0 else "worse"


def paired_differences(
    reference: Mapping[int, float],
    others: Mapping[str, Mapping[int, float]],
    correct: Mapping[str, Mapping[int, np.ndarray]],
    reference_correct: Mapping[int, np.ndarray],
    margin: float = DEFAULT_MARGIN,
    looks: int = 1,
) -> tuple[Difference, ...]:
    """Compare the reference with each other arm, seed by seed.

    In at most 5 % of comparisons any arm of the reference's accuracy is "better" or "worse", and in at most 5 % any arm
    that differs by the margin or more is "equivalent": Holm's correction over all arms, for each question.

    Args:
      reference: the reference's accuracy by seed.
      others: those of the other arms, by name and seed; a seed that only one of the two has is left out.
      correct: by name and seed, whether each test image was classified correctly, bool [N], all in one order.
      reference_correct: the same for the reference.
      margin: the largest difference, as a fraction, that counts as none.
      looks: planned looks at the results, over all of which the two rates hold.
    """
    pairs = {name: pair for name, scores in others.items() if (pair := _paired(reference, scores))}
    values = [list(pair.values()) for pair in pairs.values()]
    tests = [difference_p(each) for each in values]
    equivalences = [equivalence_p(each, margin) for each in values]
    corrected = [holm(each, looks) for each in (tests, equivalences, [sign_flip_p(each) for each in values])]
    # More seeds are one look more.
    level = strictest_level(max(1, len(pairs)), looks + 1)
    return tuple(
        Difference(
            other=name,
            by_seed=pair,
            **_spread_of(list(pair.values()), margin, looks, level),
            **_named(p_values),
            **_image_intervals(reference_correct, correct.get(name, {}), list(pair), looks),
        )
        for (name, pair), *p_values in zip(pairs.items(), tests, *corrected, strict=True)
    )


def _named(p_values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(("p", "p_holm", "p_equivalent", "p_sign_flip"), p_values, strict=True))


def _spread_of(values: Sequence[float], margin: float, looks: int, level: float) -> dict[str, Any]:
    return {
        "mean": mean_and_deviation(values)[0],
        "interval": t_interval(values, looks),
        "margin": margin,
        "looks": looks,
        "seeds_to_decide": _seeds_to_decide(values, margin, level),
    }


def _paired(reference: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {seed: reference[seed] - other[seed] for seed in sorted(reference.keys() & other.keys())}


def _seeds_to_decide(values: Sequence[float], margin: float, level: float) -> int | None:
    deviation = spread(values)
    return None if deviation is None else seeds_to_decide(deviation, margin, level)


def _image_intervals(
    reference: Mapping[int, np.ndarray], other: Mapping[int, np.ndarray], seeds: Sequence[int], looks: int
) -> dict[str, Any]:
    """The intervals that need predictions; None where the images differ."""
    shared = [seed for seed in seeds if seed in reference and seed in other]
    sizes = {len(correct[seed]) for correct in (reference, other) for seed in shared}
    if len(sizes) != 1:
        return {"image_interval": None, "crossed_interval": None}
    differences = np.stack([reference[seed].astype(float) - other[seed] for seed in shared])
    return {
        "image_interval": image_interval(differences),
        "crossed_interval": crossed_interval(differences, looks),
    }
