"""A trained network, opened from its run's folder alone: neither its data set nor its configuration file is needed."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.state import TrainState, make_initializer
from stepwise_jax.workdir import lock, signature
from stepwise_jax.workdir.checkpoints import Checkpoints
from stepwise_jax.workdir.files import CHECKPOINTS
from stepwise_jax.workdir.folder import read_config, recorded_experiment
from stepwise_jax.workdir.signature import Signature

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A network with what it has learned, and all that is needed to use it."""

    experiment: ExperimentConfig
    network: nn.Module
    variables: dict[str, Any]
    """`{"params", "batch_stats"}` of the newest good checkpoint, on one device."""
    updates: int
    """Optimiser steps that led to them."""
    signature: Signature
    """The images that it takes, the names of the classes that it answers with."""


def read_recipe(folder: Path) -> tuple[ExperimentConfig, Signature]:
    """What a run's network is built from: its experiment, and the signature with the classes.

    Raises:
      InputError: if the folder holds no run, a damaged one, or one of a version that wrote no `preprocessing.json`.
    """
    experiment, _ = recorded_experiment(read_config(folder))
    if not (folder / CHECKPOINTS).is_dir():
        raise _untrained(folder)
    return experiment, signature.read(folder)


def open_trained(folder: Path, network: nn.Module) -> Trained:
    """The newest good checkpoint of a run; nothing is written, and the folder is held only while it is read.

    Args:
      folder: the workdir.
      network: as the run had it: called as `network.apply(variables, images, train=...)`.

    Raises:
      InputError: as `read_recipe`, and if there is no checkpoint yet, none is whole, none is of this network, or a
        process is training in the folder.
    """
    experiment, signed = read_recipe(folder)
    like = _abstract_state(network, experiment)
    with (
        lock.shared(folder),
        Checkpoints(folder / CHECKPOINTS, experiment.checkpoint.keep, read_only=True) as checkpoints,
    ):
        restored = checkpoints.restore(like, lambda message: _log.warning("%s: %s", folder, message))
    if restored is None:
        raise _untrained(folder)
    state, place = restored
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return Trained(experiment, network, variables, int(place["updates"]), signed)


def _untrained(folder: Path) -> InputError:
    return InputError(f"{folder} has no checkpoint yet: train it first")


def _abstract_state(network: nn.Module, experiment: ExperimentConfig) -> TrainState:
    """Shapes and types of a run's state, all on one device."""
    initialize = make_initializer(network, make_optimizer(experiment.optimizer), experiment.data.image_size)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)

    return jax.tree.map(place, jax.eval_shape(initialize, jax.random.key(0)))
