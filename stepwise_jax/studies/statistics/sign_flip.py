"""The sign-flip test: the exact test of a difference, which assumes no distribution."""

from collections.abc import Sequence

import numpy as np
import scipy

EXACT_COUNT = 20
"""Up to so many seeds, all flips are counted."""

_RESAMPLES = 99_999
_TOLERANCE = 1e-9


def sign_flip_p(values: Sequence[float]) -> float | None:
    """The two-sided p-value of the hypothesis that each difference is as likely to have the other sign.

    It is the share of all 2^n assignments of signs whose mean is at least as far from 0 as the observed one, so never
    below 2 / 2^n: five seeds cannot reach 5 %. Beyond `EXACT_COUNT` seeds it is estimated from random flips, always the
    same ones.

    Args:
      values: one difference for each seed.

    Returns:
      None for fewer than two seeds.
    """
    if len(values) < 2:
        return None
    if len(values) > EXACT_COUNT:
        return _sampled_p(np.asarray(values))
    sums = np.zeros(1)
    # By symmetry, the first sign needs no flip.
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    observed, scale = abs(sum(values)), max(map(abs, values))
    # Equal sums may differ in their last bits.
    return float(np.mean(np.abs(sums + values[0]) >= observed - _TOLERANCE * scale))


def _sampled_p(values: np.ndarray) -> float:
    found = scipy.stats.permutation_test(
        (values,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=2000,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)
