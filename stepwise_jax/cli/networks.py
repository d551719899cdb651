"""Trained networks and weight files for the commands."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, ModelConfig

if TYPE_CHECKING:
    from stepwise_jax.inference.trained import TrainedNetwork


def load_trained(folder: Path, weights: str = "raw") -> "TrainedNetwork":
    """The trained network of a run's folder, with its weights as trained ("raw") or averaged ("ema")."""
    from stepwise_jax.functional.networks import build_network
    from stepwise_jax.inference import trained
    from stepwise_jax.runtime import compile_cache

    compile_cache.enable()
    experiment, signature = trained.read_description(folder)
    return trained.open_trained(folder, build_network(experiment, len(signature.classes)), weights)


def initial_variables(experiment: ExperimentConfig, num_classes: int) -> Any | None:
    """What `model.initial_weights` holds for the network; None where it starts from random weights.

    Raises:
      InputError: for a file that cannot be used.
    """
    from stepwise_jax.functional.networks import load_models, shape

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
            **shape(config),
        )
    except ValueError as error:
        raise InputError(f"model.initial_weights: {str(error).removeprefix('weights: ')}") from error


def import_weights(config: ModelConfig, source: Path, out: Path, key: str | None) -> Any:
    """Writes the weights that the network needs of a file to another; says how many they are.

    Raises:
      InputError: for a file that cannot be used.
      OSError: if `out` cannot be written.
    """
    from stepwise_jax.functional.networks import load_models, shape

    try:
        return load_models().import_weights(config.name, source, out, key=key, **shape(config))
    except ValueError as error:
        raise InputError(str(error)) from error
