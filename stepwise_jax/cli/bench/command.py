"""What `launch.py bench` measures, from the words of its command line: training steps of networks, or the data path."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn

from stepwise_jax.cli import display
from stepwise_jax.cli.bench import cases as cases_module
from stepwise_jax.cli.bench import input, steps, tables
from stepwise_jax.data.progress import Progress
from stepwise_jax.errors import InputError, StepwiseError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.training import session

Build = Callable[[ExperimentConfig, int], nn.Module]
"""From an experiment and the number of classes to its network."""


def run(given: Mapping[str, Any], build: Build) -> dict[str, Any]:
    """Measures, and shows meanwhile how far it is.

    Args:
      given: "networks", "data", and those options of `step_cases.DEFAULTS` or `throughput.DEFAULTS` that were given.
      build: makes the networks.

    Returns:
      What `step_bench.measure` returns, or `throughput.measure_data`.

    Raises:
      InputError: for what cannot be measured.
    """
    wanted = _prepare_data(_words(given)) if given["data"] else _prepare_steps(given["networks"], _words(given), build)
    shown = display.make_display(sys.stderr)
    try:
        return wanted(shown.preparing)
    finally:
        shown.finish()


def show(measured: Mapping[str, Any]) -> None:
    """Prints what `run` returned as a table."""
    if _of_steps(measured):
        tables.print_steps(measured)
    else:
        tables.print_throughput(measured, measured["side"], measured["image_size"])


def check(measured: Mapping[str, Any]) -> None:
    """Fails where nothing could be measured.

    Raises:
      StepwiseError: if every combination failed.
    """
    if _of_steps(measured) and all("error" in row for row in measured["rows"]):
        raise StepwiseError("none of the combinations could be measured")


def _of_steps(measured: Mapping[str, Any]) -> bool:
    return "steps_per_call" in measured


def _words(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of the measurement that is wanted, with its default where it was not given."""
    data = given["data"]
    if bool(given["networks"]) == data:
        raise InputError("bench: say what to measure: NETWORK..., or --data")
    ours, others = cases_module.DEFAULTS, input.DEFAULTS
    ours, others = (others, ours) if data else (ours, others)
    for name in given.keys() & (others.keys() - ours.keys()):
        belongs = "NETWORK..., not of --data" if data else "--data, not of NETWORK..."
        raise InputError(f"--{name.replace('_', '-')} is an option of bench {belongs}")
    return {name: given.get(name, default) for name, default in ours.items()}


def _prepare_data(words: Mapping[str, Any]) -> Callable[[Progress], dict[str, Any]]:
    images, side, image_size, batch_size, epochs = (
        words[name] for name in ("images", "side", "image_size", "batch_size", "epochs")
    )
    if min(images, side, image_size, batch_size, epochs) < 1:
        raise InputError("bench: --images, --side, --image-size, --batch-size and --epochs must be at least 1")
    if images < max(2, batch_size):
        raise InputError(f"--images {images}: it must be at least 2 and fill a batch of {batch_size}")

    def measure(progress: Progress) -> dict[str, Any]:
        resident = not words["streamed_only"]
        measured = input.measure_data(images, side, image_size, batch_size, epochs, progress, resident=resident)
        return {**measured, "side": side, "image_size": image_size}

    return measure


def _prepare_steps(names: list[str], words: Mapping[str, Any], build: Build) -> Callable[[Progress], dict[str, Any]]:
    sizes = cases_module.batch_sizes(words["batch_sizes"], jax.device_count())
    experiments = cases_module.experiments(tuple(dict.fromkeys(names)), words)
    setting = cases_module.setting(words, session.resolve(ExperimentConfig(), None).steps_per_call)
    networks = {key: build(experiment, words["classes"]) for key, experiment in experiments.items()}
    cases = [cases_module.Case(*key, size, network) for key, network in networks.items() for size in sizes]
    return lambda progress: steps.measure(cases, setting, progress)
