"""A few test images that are kept with a run's predictions, so that a report can show them without the data set."""

import numpy as np

from stepwise_jax.data import images

EACH = 12
"""Images of either kind: wrong with the highest probability, and drawn evenly."""

LONGEST_SIDE = 96
"""In pixels; larger images are scaled down."""


def choose(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Rows int64 [K], each once: first the wrong ones, the surest first, then some at even distances over all.

    Args:
      labels: int [N].
      probabilities: float [N, C].
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    surest = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:EACH]
    even = np.linspace(0, len(labels) - 1, min(EACH, len(labels))).round().astype(np.int64)
    return np.array(list(dict.fromkeys([*surest.tolist(), *even.tolist()])), np.int64)


def shrink(pixels: np.ndarray) -> np.ndarray:
    """uint8 [K, H, W, C] with no side above `LONGEST_SIDE`, in the same proportions, scaled by area."""
    height, width = pixels.shape[1:3]
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    sides = max(1, round(height * scale)), max(1, round(width * scale))
    return np.stack([images.resize(image, *sides) for image in pixels])
