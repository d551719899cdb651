"""Which part of a prepared data set an experiment uses: all of it, or fewer training images, some held out for scoring.

The order on disk is random, a hash of each image's key, so that its first and its last images are random draws.
"""

from stepwise_jax.datasets.dataset import Sizes
from stepwise_jax.errors import require
from stepwise_jax.experiment.config import DataConfig


def rows(data: DataConfig, split: str, stored: Sizes) -> tuple[str, range]:
    """The split on disk and its rows that stand for "train" or for "test".

    Raises:
      InputError: where data.train_examples and data.validation_fraction ask for more images than there are.
    """
    held_out = _held_out(data, stored)
    if split == "test":
        return ("train", range(stored.train - held_out, stored.train)) if held_out else ("test", range(stored.test))
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
