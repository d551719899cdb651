"""Splits: which rows train and which are scored, and test splits for data sets that come without one."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from stepwise_jax.data.dataset import Sizes
from stepwise_jax.errors import require
from stepwise_jax.experiment.config import DataConfig


def rows(data: DataConfig, split: str, stored: Sizes) -> tuple[str, range]:
    """The split on disk and its rows that stand for "train" or for "test".

    Raises:
      InputError: where data.train_examples and data.validation_fraction ask for more images than there are.
    """
    held_out = _held_out(data, stored)
    if split == "test":
        return (
            ("train", range(stored.train - held_out, stored.train))
            if held_out
            else ("test", range(stored.test))
        )
    count = stored.train - held_out if data.train_examples is None else data.train_examples
    left = stored.train - held_out
    require(1 <= count <= left, "data.train_examples", count, f"at most {left}, the training images that are there")
    return "train", range(count)


def used(data: DataConfig, stored: Sizes) -> Sizes:
    """How many images the experiment trains on and scores, of those on disk."""
    train, test = (len(rows(data, split, stored)[1]) for split in ("train", "test"))
    return Sizes(train, test, stored.num_classes)


def _held_out(data: DataConfig, stored: Sizes) -> int:
    if data.validation_fraction == 0:
        return 0
    count = round(data.validation_fraction * stored.train)
    wanted = f"such that some of {stored.train} training images are held out, and some are not"
    require(1 <= count < stored.train, "data.validation_fraction", data.validation_fraction, wanted)
    return count


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


def draw_test_split(ids: Sequence[str], labels: Sequence[int], fraction: float) -> np.ndarray:
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
