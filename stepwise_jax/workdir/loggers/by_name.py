"""Loggers by the names that the command line uses."""

import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from stepwise_jax.errors import require
from stepwise_jax.workdir.loggers.logger import Logger
from stepwise_jax.workdir.loggers.mlflow_runs import log_to_mlflow
from stepwise_jax.workdir.loggers.trackio_runs import log_to_trackio
from stepwise_jax.workdir.loggers.weights_and_biases import log_to_wandb

LOGGERS: Mapping[str, Callable[..., Logger]] = MappingProxyType(
    {"wandb": log_to_wandb, "mlflow": log_to_mlflow, "trackio": log_to_trackio}
)
"""Each takes a workdir, and the folder of its comparison or sweep if there is one."""


def make_loggers(
    names: Sequence[str], workdir: str | os.PathLike[str], study: str | os.PathLike[str] | None = None
) -> list[Logger]:
    """Return the observers of a run.

    Args:
      names: of `LOGGERS`.
      workdir: of the run.
      study: the folder of the comparison or sweep that holds the workdir.

    Raises:
      InputError: for an unknown name, a library that is missing or has no credentials, or a workdir elsewhere.
    """
    for name in names:
        choice = f"{' or '.join(LOGGERS)}; TensorBoard's events are always written"
        require(name in LOGGERS, "--log", name, choice)
    return [LOGGERS[name](workdir, study) for name in dict.fromkeys(names)]
