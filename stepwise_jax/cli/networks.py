"""Networks and weights by name: the only place that loads the package of networks."""

import importlib
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, ModelConfig
from stepwise_jax.runtime.process import check_jax_settings

if TYPE_CHECKING:
    from flax import linen as nn

    from stepwise_jax.inference.trained import TrainedNetwork

_PLACES = ("stepwise_jax.models", "models")
"""In an installed package, and in a clone, which keeps the networks at its top."""


def load_models() -> ModuleType:
    """The package of networks."""
    place = next(place for place in _PLACES if importlib.util.find_spec(place))
    return importlib.import_module(place)


def build_network(experiment: ExperimentConfig, num_classes: int) -> "nn.Module":
    """The network that `model` describes, checked against the size of its images.

    Raises:
      InputError: for an unknown network, a shape that it cannot have, or options of JAX that no network works under.
    """
    import jax

    check_jax_settings()
    config, size = experiment.model, experiment.data.image_size
    try:
        network = load_models().build(config.name, num_classes=num_classes, dtype=experiment.dtype, **_shape(config))
        network.check(jax.ShapeDtypeStruct((1, size, size, 3), "float32"))
        return network
    except ValueError as error:
        raise InputError(f"model: {error}") from error


def load_trained(folder: Path) -> "TrainedNetwork":
    """The trained network of a run's folder."""
    from stepwise_jax.inference import trained
    from stepwise_jax.runtime import compile_cache

    compile_cache.enable()
    experiment, signature = trained.read_description(folder)
    return trained.open_trained(folder, build_network(experiment, len(signature.classes)))


def initial_variables(experiment: ExperimentConfig, num_classes: int) -> Any | None:
    """What `model.initial_weights` holds for the network; None where it starts from random weights.

    Raises:
      InputError: for a file that cannot be used.
    """
    config = experiment.model
    if config.initial_weights is None:
        return None
    try:
        return load_models().load_weights(
            config.name,
            os.path.expanduser(config.initial_weights),
            num_classes=num_classes,
            keep_head=config.keep_head,
            seed=experiment.seed,
            **_shape(config),
        )
    except ValueError as error:
        raise InputError(f"model.initial_weights: {str(error).removeprefix('weights: ')}") from error


def import_weights(config: ModelConfig, source: Path, out: Path, key: str | None) -> Any:
    """Writes the weights that the network needs of a file to another; says how many they are.

    Raises:
      InputError: for a file that cannot be used.
      OSError: if `out` cannot be written.
    """
    try:
        return load_models().import_weights(config.name, source, out, key=key, **_shape(config))
    except ValueError as error:
        raise InputError(str(error)) from error


def _shape(config: ModelConfig) -> dict[str, Any]:
    return {"small_images": config.small_images, "width": config.width, "blocks": config.blocks}
