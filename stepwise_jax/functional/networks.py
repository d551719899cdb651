"""Networks by name or by a function: the only place that loads the package of networks."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import flax.errors
import jax
import numpy as np
from flax import linen as nn

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.experiment.config import ExperimentConfig, ModelConfig
from stepwise_jax.experiment.functions import load
from stepwise_jax.runtime.process import check_jax_settings

_PLACES = ("stepwise_jax.models", "models")
"""In an installed package, and in a clone, which keeps the networks at its top."""


def load_models() -> ModuleType:
    """Return the package of networks."""
    place = next(place for place in _PLACES if importlib.util.find_spec(place))
    return importlib.import_module(place)


def build_network(experiment: ExperimentConfig, num_classes: int) -> nn.Module:
    """Build the network that `model` describes, checked against the size of its images.

    Raises:
      InputError: for an unknown network, a shape that it cannot have, or options of JAX that no network works under.
    """
    check_jax_settings()
    config, size = experiment.model, experiment.data.image_size
    if callable(config.name):
        return _call(load(config.name), num_classes, experiment.dtype, size)
    try:
        options = {"num_classes": num_classes, "dtype": experiment.dtype, "stem_stride": config.stem_stride}
        network = load_models().build(config.name, **options, **shape(config))
        network.check(jax.ShapeDtypeStruct((1, size, size, 3), "float32"))
        return network
    except ValueError as error:
        raise InputError(f"model: {error}") from error


def _call(function: Callable[..., Any], num_classes: int, dtype: str, size: int) -> nn.Module:
    """Call a user's function of (num_classes), or of (num_classes, dtype), and try the network on one image."""
    name = getattr(function, "__name__", "the function")
    try:
        takes_dtype = "dtype" in inspect.signature(function).parameters
        network = function(num_classes=num_classes, **({"dtype": dtype} if takes_dtype else {}))
    except Exception as error:
        raise InputError(f"model.name: {name}(num_classes={num_classes}) failed: {describe_error(error)}") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"model.name: {name} returned {type(network).__name__}, not a flax.linen.Module")
    check_output(network, num_classes, size)
    return network


def check_output(network: nn.Module, num_classes: int, size: int) -> None:
    """Check from shapes alone that a network turns images into logits of the right shape.

    Raises:
      InputError: says what it does instead.
    """
    name = type(network).__name__
    images = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
    try:
        logits, _ = jax.eval_shape(partial(network.init_with_output, train=False), abstract_key(), images)
    except Exception as error:
        raise InputError(f"model.name: {name} fails on images of {size} pixels: {describe_error(error)}") from error
    if getattr(logits, "shape", None) != (2, num_classes):
        found = getattr(logits, "shape", type(logits).__name__)
        raise InputError(f"model.name: {name} turns [2, {size}, {size}, 3] into {found}, not [2, {num_classes}]")


def abstract_key() -> Any:
    """Return a random key for `jax.eval_shape`; unlike a real one, it starts no device."""
    return jax.eval_shape(jax.random.key, 0)


def is_shipped(network: nn.Module) -> bool:
    """Return whether a network is of the package of networks."""
    return type(network).__module__.startswith(f"{load_models().__name__}.")


def is_stochastic(network: nn.Module, size: int) -> bool:
    """Return whether a network draws random numbers while it trains, as dropout does."""
    if is_shipped(network):
        # None of these does, and tracing a large one takes seconds.
        return False
    images = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
    variables = jax.eval_shape(partial(network.init, train=False), abstract_key(), images)
    try:
        jax.eval_shape(partial(network.apply, train=True, mutable=["batch_stats"]), variables, images)  # pyright: ignore
    except flax.errors.InvalidRngError:
        return True
    return False


def shape(config: ModelConfig) -> dict[str, Any]:
    """Return the options of a network that its weights depend on, by name."""
    return {"small_images": config.small_images, "width": config.width, "blocks": config.blocks}
