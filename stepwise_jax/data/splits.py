"""Which rows are trained on and which are scored, and test splits for data sets that come without one."""

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from stepwise_jax.data.dataset import Sizes
from stepwise_jax.data.subsets import draw_sample
from stepwise_jax.errors import require
from stepwise_jax.experiment.config import DataConfig


def select_rows(data: DataConfig, split: str, stored: Sizes) -> tuple[str, Sequence[int]]:
    """The split on disk, and its rows, that an experiment uses as "train" or as "test".

    Raises:
      InputError: where data.train_examples and data.validation_fraction need more images than there are.
    """
    held_out = _held_out(data, stored)
    available = stored.train - held_out
    if split == "test":
        return ("train", range(available, stored.train)) if held_out else ("test", range(stored.test))
    count = available if data.train_examples is None else data.train_examples
    require(
        1 <= count <= available,
        "data.train_examples",
        count,
        f"at most {available}, the number of training images available",
    )
    if data.sample_seed is not None:
        return "train", tuple(draw_sample(data.sample_seed, available, count).tolist())
    return "train", range(count)


def used_sizes(data: DataConfig, stored: Sizes) -> Sizes:
    """How many of the images on disk the experiment trains on and scores."""
    train, test = (len(select_rows(data, split, stored)[1]) for split in ("train", "test"))
    return Sizes(train, test, stored.num_classes)


def _held_out(data: DataConfig, stored: Sizes) -> int:
    """Number of training images that data.validation_fraction holds out."""
    if data.validation_fraction == 0:
        return 0
    count = round(_exact(data.validation_fraction) * stored.train)
    requirement = f"such that some of {stored.train} training images are held out, and some are not"
    require(1 <= count < stored.train, "data.validation_fraction", data.validation_fraction, requirement)
    return count


def _exact(fraction: float) -> Fraction:
    """The fraction that is meant: 7/100 by 0.07, whose product with 100 would be above 7 in floating point."""
    return Fraction(fraction).limit_denominator(1_000_000)


def apportion(sizes: Sequence[int], total: int) -> list[int]:
    """Shares of `total` in proportion to `sizes`, by largest remainder; none exceeds its size minus one.

    Ties go to the earlier entry. The shares sum to `total` unless the limits prevent it.
    """
    exact = [total * size / sum(sizes) for size in sizes]
    shares = [min(math.floor(share), size - 1) for share, size in zip(exact, sizes, strict=True)]
    by_remainder = sorted(range(len(sizes)), key=lambda entry: (shares[entry] - exact[entry], entry))
    for entry in by_remainder:
        if sum(shares) < total and shares[entry] < sizes[entry] - 1:
            shares[entry] += 1
    return shares


def draw_test_split(ids: Sequence[str], labels: Sequence[int], fraction: float) -> np.ndarray:
    """Draw the test examples: bool [N], a pure function of ids, labels and fraction.

    ceil(fraction * N) examples, each class in proportion; every class keeps at least one example for training.
    """
    hashes, classes = _hash_names(ids), np.array(labels)
    sizes = np.bincount(classes)
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(sizes)[:-1])
    mask = np.zeros(len(ids), bool)
    for rows, share in zip(members, apportion(sizes.tolist(), math.ceil(_exact(fraction) * len(ids))), strict=True):
        mask[rows[np.argsort(hashes[rows], kind="stable")[:share]]] = True
    return mask


def _hash_names(names: Sequence[str]) -> np.ndarray:
    """The first seven bytes of a hash of each name, uint64 [N]."""
    digests = b"".join([hashlib.sha256(b"held out:" + name.encode()).digest() for name in names])
    return np.frombuffer(digests, ">u8")[::4].astype(np.uint64) >> np.uint64(8)
