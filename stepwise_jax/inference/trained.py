"""Opens a trained network from its run's folder alone, without its data set or configuration file."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.formatting import describe_progress
from stepwise_jax.functional.recipe import make_state_initializer
from stepwise_jax.functional.state import TrainState, averaged_variables, trained_variables
from stepwise_jax.workdir import lock
from stepwise_jax.workdir.checkpoints import Checkpoints
from stepwise_jax.workdir.files import CHECKPOINTS
from stepwise_jax.workdir.folder import parse_config, read_config
from stepwise_jax.workdir.signature import Signature, read_signature

_WEIGHTS = {"raw": trained_variables, "ema": averaged_variables}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network with everything needed to use it."""

    experiment: ExperimentConfig
    network: nn.Module
    variables: dict[str, Any]
    """`{"params", "batch_stats"}` of the newest intact checkpoint, on one device."""
    updates: int
    """Optimizer steps that the variables were trained for."""
    signature: Signature
    """Its input images and the names of its classes."""
    planned_updates: int | None = None
    """Optimizer steps of the whole run; None if unknown."""
    damaged: tuple[int, ...] = ()
    """Newer checkpoints that are damaged, by their updates."""
    weights: str = "raw"
    """Which weights `variables` holds: "raw", as trained, or "ema", their moving average."""

    @property
    def progress(self) -> str:
        """Which state of the run this is: "118 updates"."""
        planned = self.updates if self.planned_updates is None else self.planned_updates
        return describe_progress(self.updates, planned, self.damaged)

    @property
    def is_final(self) -> bool:
        """Whether this is the state at the end of the run."""
        return self.planned_updates in (None, self.updates)


def read_description(folder: Path) -> tuple[ExperimentConfig, Signature]:
    """Read what is needed to build a run's network: its experiment, and its signature with the classes.

    Raises:
      InputError: if the folder holds no run, a damaged run, or a run of a version that wrote no `preprocessing.json`.
    """
    experiment, _ = parse_config(read_config(folder))
    if not (folder / CHECKPOINTS).is_dir():
        raise _no_checkpoint(folder)
    return experiment, read_signature(folder)


def open_trained(folder: Path, network: nn.Module, weights: str = "raw") -> TrainedNetwork:
    """Open the newest intact checkpoint of a run; nothing is written, and the folder is locked only while it is read.

    Args:
      folder: the workdir.
      network: built as for the run; called as `network.apply(variables, images, train=...)`.
      weights: "raw" for the weights as trained, "ema" for their moving average (`optimizer.ema_decay`).

    Raises:
      InputError: as `read_description`; also if the run has no moving average to open, there is no checkpoint yet, none
        is intact, none is of this network, or a process is training in the folder.
      ReadError: if a checkpoint cannot be read for a reason that may pass.
    """
    experiment, signature = read_description(folder)
    _check_weights(weights, experiment, folder)
    _, stages = parse_config(read_config(folder))
    like = _abstract_state(network, experiment, len(signature.classes))
    with (
        lock.shared_lock(folder),
        Checkpoints(folder / CHECKPOINTS, experiment.checkpoint.keep, read_only=True) as checkpoints,
    ):
        restored = checkpoints.restore(like, lambda message: _log.warning("%s: %s", folder, message))
    if restored is None:
        raise _no_checkpoint(folder)
    state, position = restored
    variables = _WEIGHTS[weights](state)
    planned = sum(stage.updates for stage in stages)
    updates = int(position["updates"])
    return TrainedNetwork(experiment, network, variables, updates, signature, planned, checkpoints.damaged, weights)


def _check_weights(weights: str, experiment: ExperimentConfig, folder: Path) -> None:
    require(weights in _WEIGHTS, "weights", weights, f"one of {', '.join(_WEIGHTS)}")
    has_them = weights == "raw" or experiment.optimizer.ema_decay is not None
    require(has_them, "weights", weights, f"'raw': {folder} was trained without optimizer.ema_decay")


def _no_checkpoint(folder: Path) -> InputError:
    return InputError(f"{folder} has no checkpoint yet: train it first")


def _abstract_state(network: nn.Module, experiment: ExperimentConfig, num_classes: int) -> TrainState:
    """Shapes and dtypes of a run's state, all on one device."""
    initialize = make_state_initializer(experiment, network, num_classes)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def on_device(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)

    return jax.tree.map(on_device, jax.eval_shape(initialize, jax.random.key(0)))
