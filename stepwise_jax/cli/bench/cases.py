"""Which training steps `launch.py bench` measures: networks x precisions x batch sizes, from words to checked data."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flax import linen as nn

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import DataConfig, ExperimentConfig, ModelConfig

Precision = Literal["float32", "bfloat16"]

PRECISIONS: tuple[Precision, ...] = typing.get_args(Precision)

DEFAULTS: dict[str, Any] = {
    "batch_sizes": "24,48,72,96",
    "precisions": "float32,bfloat16",
    "image_size": 224,
    "small_images": False,
    "width": None,
    "blocks": None,
    "classes": 1000,
    "steps_per_call": 0,
    "seconds": 10.0,
}
"""What `bench NETWORK...` takes where the command line does not say."""


@dataclass(frozen=True)
class Case:
    """One combination that is measured."""

    name: str
    """Of the network."""
    precision: Precision
    batch_size: int
    network: nn.Module

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}, batch {self.batch_size}"


@dataclass(frozen=True)
class Setting:
    """What all combinations of a measurement share."""

    image_size: int
    classes: int
    steps_per_call: int
    """Optimiser steps in one compiled call."""
    seconds: float
    """The time that each combination's turns take together, compiling and warming up aside."""


def batch_sizes(text: str, devices: int) -> tuple[int, ...]:
    """The sizes that `--batch-sizes` lists.

    Raises:
      InputError: for what is no positive whole number, or no share of which is left for each of `devices`.
    """
    sizes = _numbers("--batch-sizes", text)
    for size in sizes:
        below = size // devices * devices
        if below != size:
            fitting = " or ".join(str(each) for each in (below, below + devices) if each)
            raise InputError(
                f"--batch-sizes has {size}: {devices} devices share a batch evenly, so it must be {fitting}"
            )
    # A network whose last map is one pixel has no variance over a batch of one image.
    require(min(sizes) >= 2 * devices, "--batch-sizes", text, f"sizes of at least {2 * devices}, two images a device")
    return tuple(dict.fromkeys(sizes))


def precisions(text: str) -> tuple[Precision, ...]:
    """The precisions that `--precisions` lists.

    Raises:
      InputError: for any other word.
    """
    words = text.split(",")
    known: list[Precision] = [precision for word in words for precision in PRECISIONS if word == precision]
    require(len(known) == len(words), "--precisions", text, f"some of {', '.join(PRECISIONS)}, with commas between")
    return tuple(dict.fromkeys(known))


def experiments(names: Sequence[str], words: Mapping[str, Any]) -> dict[tuple[str, Precision], ExperimentConfig]:
    """What describes each network and precision to those who build networks, once each.

    Args:
      names: of networks.
      words: values of the options of `DEFAULTS`.

    Raises:
      InputError: for a width, blocks or an image size that make no network.
    """
    blocks = None if words["blocks"] is None else _numbers("--blocks", words["blocks"])
    require(blocks is None or len(blocks) <= 4, "--blocks", words["blocks"], "one to four positive numbers, as 3,4,6,3")
    require(words["width"] is None or words["width"] >= 2, "--width", words["width"], "at least 2")
    require(words["image_size"] >= 1, "--image-size", words["image_size"], "at least 1")
    require(words["classes"] >= 2, "--classes", words["classes"], "at least 2")
    data = DataConfig(image_size=words["image_size"])
    return {
        (name, precision): ExperimentConfig(
            data=data,
            model=ModelConfig(name=name, small_images=words["small_images"], width=words["width"], blocks=blocks),
            dtype=precision,
        )
        for name in names
        for precision in precisions(words["precisions"])
    }


def setting(words: Mapping[str, Any], steps_per_call: int) -> Setting:
    """What all combinations share.

    Args:
      words: values of the options of `DEFAULTS`.
      steps_per_call: what a run takes here, where the words leave it open.

    Raises:
      InputError: for numbers that are too small.
    """
    steps, seconds = words["steps_per_call"], words["seconds"]
    require(steps >= 0, "--steps-per-call", steps, "at least 1, or 0 for what a run takes on this device")
    require(0 < seconds < float("inf"), "--seconds", seconds, "a positive number of seconds")
    return Setting(words["image_size"], words["classes"], steps or steps_per_call, seconds)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    words = text.split(",")
    positive = all(word.isascii() and word.isdigit() and int(word) for word in words)
    require(positive, option, text, "positive whole numbers with commas between")
    return tuple(map(int, words))
