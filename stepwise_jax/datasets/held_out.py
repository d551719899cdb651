"""Test splits drawn for data sets that come without one: fixed, by class, from the examples' names alone."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np


def apportion(sizes: Sequence[int], total: int) -> list[int]:
    """Shares of `total` in proportion to `sizes`, by largest remainder; none above its size less one.

    Ties go to the earlier entry. The shares sum to `total` unless the limits forbid it.
    """
    exact = [total * size / sum(sizes) for size in sizes]
    shares = [min(math.floor(share), size - 1) for share, size in zip(exact, sizes, strict=True)]
    by_remainder = sorted(range(len(sizes)), key=lambda entry: (shares[entry] - exact[entry], entry))
    for entry in by_remainder:
        if sum(shares) < total and shares[entry] < sizes[entry] - 1:
            shares[entry] += 1
    return shares


def held_out(ids: Sequence[str], labels: Sequence[int], fraction: float) -> np.ndarray:
    """Which examples are for testing: bool [N], a pure function of names, labels and fraction.

    ceil(fraction * N) examples, each class in proportion; every class keeps at least one example for training.
    """
    names, classes = np.array([_hash(name) for name in ids]), np.array(labels)
    sizes = np.bincount(classes)
    mask = np.zeros(len(ids), bool)
    for label, share in enumerate(apportion(sizes.tolist(), math.ceil(fraction * len(ids)))):
        members = np.flatnonzero(classes == label)
        mask[members[np.argsort(names[members], kind="stable")[:share]]] = True
    return mask


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(b"held out:" + name.encode()).digest()[:7], "big")
