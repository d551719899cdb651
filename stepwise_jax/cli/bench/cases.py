"""The cases that `launch.py bench` measures: networks x precisions x batch sizes, parsed from options and checked."""

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
"""Default options of `bench NETWORK...`."""


@dataclass(frozen=True)
class BenchmarkCase:
    """One combination to measure."""

    network_name: str
    precision: Precision
    batch_size: int
    network: nn.Module

    def __str__(self) -> str:
        return f"{self.network_name}, {self.precision}, batch {self.batch_size}"


@dataclass(frozen=True)
class BenchmarkSettings:
    """Settings that all cases share."""

    image_size: int
    classes: int
    steps_per_call: int
    """Optimiser steps in one compiled call."""
    seconds: float
    """Measuring time of each case, without compilation and warm-up."""


def parse_batch_sizes(text: str, devices: int) -> tuple[int, ...]:
    """The batch sizes in the value of `--batch-sizes`, without repeats.

    Raises:
      InputError: for a size that is not a positive whole number, does not divide evenly over `devices`, or gives a
        device fewer than two images.
    """
    sizes = _parse_numbers("--batch-sizes", text)
    for size in sizes:
        below = size // devices * devices
        if below != size:
            valid = " or ".join(str(each) for each in (below, below + devices) if each)
            raise InputError(f"--batch-sizes has {size}: {devices} devices share a batch evenly, so it must be {valid}")
    # If the last feature map is one pixel, a batch of one image has no variance.
    require(min(sizes) >= 2 * devices, "--batch-sizes", text, f"sizes of at least {2 * devices}, two images a device")
    return tuple(dict.fromkeys(sizes))


def parse_precisions(text: str) -> tuple[Precision, ...]:
    """The precisions in the value of `--precisions`, without repeats.

    Raises:
      InputError: for any other word.
    """
    names = text.split(",")
    known: list[Precision] = [precision for name in names for precision in PRECISIONS if name == precision]
    require(len(known) == len(names), "--precisions", text, f"some of {', '.join(PRECISIONS)}, separated by commas")
    return tuple(dict.fromkeys(known))


def make_experiments(names: Sequence[str], options: Mapping[str, Any]) -> dict[tuple[str, Precision], ExperimentConfig]:
    """One experiment for each network and precision, from which the network is built.

    Args:
      names: networks.
      options: values of the options in `DEFAULTS`.

    Raises:
      InputError: for an invalid width, number of blocks, image size or number of classes.
    """
    width, blocks = options["width"], options["blocks"]
    counts = None if blocks is None else _parse_numbers("--blocks", blocks)
    require(counts is None or len(counts) <= 4, "--blocks", blocks, "one to four positive numbers, as 3,4,6,3")
    require(width is None or width >= 2, "--width", width, "at least 2")
    require(options["image_size"] >= 1, "--image-size", options["image_size"], "at least 1")
    require(options["classes"] >= 2, "--classes", options["classes"], "at least 2")
    data = DataConfig(image_size=options["image_size"])
    return {
        (name, precision): ExperimentConfig(
            data=data,
            model=ModelConfig(name=name, small_images=options["small_images"], width=width, blocks=counts),
            dtype=precision,
        )
        for name in names
        for precision in parse_precisions(options["precisions"])
    }


def make_settings(options: Mapping[str, Any], steps_per_call: int) -> BenchmarkSettings:
    """The settings that all cases share.

    Args:
      options: values of the options in `DEFAULTS`.
      steps_per_call: a training run's value on this device, used if the option is 0.

    Raises:
      InputError: for a number that is too small.
    """
    steps, seconds = options["steps_per_call"], options["seconds"]
    require(steps >= 0, "--steps-per-call", steps, "at least 1, or 0 for a run's default on this device")
    require(0 < seconds < float("inf"), "--seconds", seconds, "a positive number of seconds")
    return BenchmarkSettings(options["image_size"], options["classes"], steps or steps_per_call, seconds)


def _parse_numbers(option: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    positive = all(part.isascii() and part.isdigit() and int(part) for part in parts)
    require(positive, option, text, "positive whole numbers, separated by commas")
    return tuple(map(int, parts))
