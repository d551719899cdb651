"""Intervals that count test images: over images alone, and over seeds and images together."""

import math

import numpy as np
import scipy

from stepwise_jax.studies.statistics.student import SIGNIFICANCE, Interval

_RESAMPLES = 2000
_ROUNDING = 1e-12


def image_interval(differences: np.ndarray) -> Interval | None:
    """A percentile bootstrap over test images with the seeds held fixed: the sampling error of the test set.

    Args:
      differences: [seeds, images], 1 where only the reference is correct, -1 where only the other arm is, else 0.

    Returns:
      None for fewer than two images, or where all have the same mean over seeds.
    """
    per_image = differences.mean(0)
    if len(per_image) < 2 or np.ptp(per_image) == 0:
        return None
    found = scipy.stats.bootstrap(
        (per_image,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=50,
        confidence_level=1 - SIGNIFICANCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def crossed_interval(differences: np.ndarray, looks: int = 1) -> Interval | None:
    """The interval of the mean difference over other seeds and other test images together.

    Seeds and images are crossed random effects: difference = mean + seed + image + rest. The variance of the mean is
    that of S. L. Hillis (A comparison of denominator degrees of freedom methods for multiple observer ROC studies,
    2007), with seeds as readers and images as cases; a negative variance of images counts as 0. Images add to his
    degrees of freedom (Satterthwaite's) where they are few. The interval is never narrower than the t interval over
    seeds alone.

    Args:
      differences: [seeds, images], as for `image_interval`.
      looks: planned looks at the results, at all of which the interval holds together.

    Returns:
      None for fewer than two seeds or images, or where the mean squares leave no spread to estimate from.
    """
    seeds, images = differences.shape
    if min(seeds, images) < 2:
        return None
    of_seeds, of_images, rest = mean_squares(differences)
    if of_seeds <= _ROUNDING * float(np.mean(differences**2)):
        # Where the seeds all agree, nothing says how much they could differ.
        return None
    from_images = max(of_images - rest, 0.0)
    variance = (of_seeds + from_images) / (seeds * images)
    freedom = (of_seeds + from_images) ** 2 / (of_seeds**2 / (seeds - 1) + from_images**2 / (images - 1))
    tail = 1 - SIGNIFICANCE / looks / 2
    half = float(scipy.special.stdtrit(freedom, tail)) * math.sqrt(variance)
    of_seeds_alone = float(scipy.special.stdtrit(seeds - 1, tail)) * math.sqrt(of_seeds / (seeds * images))
    half = max(half, of_seeds_alone)
    mean = float(differences.mean())
    return Interval(mean - half, mean + half)


def mean_squares(values: np.ndarray) -> tuple[float, float, float]:
    """The mean squares of a two-way analysis of variance without replication: of rows, of columns, and of the rest."""
    rows, columns = values.shape
    center = values.mean()
    by_row, by_column = values.mean(1) - center, values.mean(0) - center
    of_rows, of_columns = columns * np.sum(by_row**2), rows * np.sum(by_column**2)
    rest = np.sum((values - center) ** 2) - of_rows - of_columns
    return (
        float(of_rows / (rows - 1)),
        float(of_columns / (columns - 1)),
        float(rest / ((rows - 1) * (columns - 1))),
    )
