"""Runs `launch.py bench` from its parsed options: training steps of networks, or the input pipeline with `--data`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn

from stepwise_jax.cli import display
from stepwise_jax.cli.bench import cases, input, steps, tables
from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.errors import InputError, StepwiseError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.training import session

BuildNetwork = Callable[[ExperimentConfig, int], nn.Module]
"""Builds the network of an experiment for a number of classes."""

Measurement = Callable[[ProgressCallback], dict[str, Any]]


def run_benchmark(options: Mapping[str, Any], build_network: BuildNetwork) -> dict[str, Any]:
    """Measures, and displays its progress meanwhile.

    Args:
      options: "networks", "data", and the given ones among the options of `cases.DEFAULTS` or `input.DEFAULTS`.
      build_network: builds the networks.

    Returns:
      The document of `steps.measure` or `input.measure_data`.

    Raises:
      InputError: for options that cannot be measured.
    """
    values = _fill_defaults(options)
    measure = _prepare_data(values) if options["data"] else _prepare_steps(options["networks"], values, build_network)
    with display.make_display(sys.stderr) as shown:
        return measure(shown.show_progress)


def print_benchmark(document: Mapping[str, Any]) -> None:
    """Prints the document of `run_benchmark` as a table."""
    if _measures_steps(document):
        tables.print_steps(document)
    else:
        tables.print_throughput(document, document["side"], document["image_size"])


def require_measurement(document: Mapping[str, Any]) -> None:
    """Checks that at least one combination was measured.

    Raises:
      StepwiseError: if every combination failed.
    """
    if _measures_steps(document) and all("error" in row for row in document["rows"]):
        raise StepwiseError("none of the combinations could be measured")


def _measures_steps(document: Mapping[str, Any]) -> bool:
    return "steps_per_call" in document


def _fill_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of the requested measurement, with its default where it was not given."""
    data = options["data"]
    if bool(options["networks"]) == data:
        raise InputError("bench: say what to measure: NETWORK..., or --data")
    ours, others = cases.DEFAULTS, input.DEFAULTS
    ours, others = (others, ours) if data else (ours, others)
    for name in options.keys() & (others.keys() - ours.keys()):
        owner = "NETWORK..., not of --data" if data else "--data, not of NETWORK..."
        raise InputError(f"--{name.replace('_', '-')} is an option of bench {owner}")
    return {name: options.get(name, default) for name, default in ours.items()}


def _prepare_data(options: Mapping[str, Any]) -> Measurement:
    images, side, image_size, batch_size, epochs = (
        options[name] for name in ("images", "side", "image_size", "batch_size", "epochs")
    )
    if min(images, side, image_size, batch_size, epochs) < 1:
        raise InputError("bench: --images, --side, --image-size, --batch-size and --epochs must be at least 1")
    if images < max(2, batch_size):
        raise InputError(f"--images {images}: it must be at least 2 and fill a batch of {batch_size}")

    def measure(progress: ProgressCallback) -> dict[str, Any]:
        resident = not options["streamed_only"]
        document = input.measure_data(images, side, image_size, batch_size, epochs, progress, resident=resident)
        return {**document, "side": side, "image_size": image_size}

    return measure


def _prepare_steps(names: Sequence[str], options: Mapping[str, Any], build_network: BuildNetwork) -> Measurement:
    sizes = cases.parse_batch_sizes(options["batch_sizes"], jax.device_count())
    experiments = cases.make_experiments(tuple(dict.fromkeys(names)), options)
    settings = cases.make_settings(options, session.resolve_steps_per_call(ExperimentConfig(), None).steps_per_call)
    networks = {key: build_network(experiment, options["classes"]) for key, experiment in experiments.items()}
    combinations = [cases.BenchmarkCase(*key, size, network) for key, network in networks.items() for size in sizes]
    return lambda progress: steps.measure(combinations, settings, progress)
