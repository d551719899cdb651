"""Observers that log a run elsewhere: Weights & Biases, MLflow, Trackio, and TensorBoard, which every run has."""

from stepwise_jax.workdir.loggers.by_name import LOGGERS, make_loggers
from stepwise_jax.workdir.loggers.logger import Logger, RunIdentity, Tracker
from stepwise_jax.workdir.loggers.mlflow_runs import log_to_mlflow
from stepwise_jax.workdir.loggers.scalars import epoch_scalars, summary_scalars
from stepwise_jax.workdir.loggers.trackio_runs import log_to_trackio
from stepwise_jax.workdir.loggers.weights_and_biases import log_to_wandb

__all__ = [
    "LOGGERS",
    "Logger",
    "RunIdentity",
    "Tracker",
    "epoch_scalars",
    "log_to_mlflow",
    "log_to_trackio",
    "log_to_wandb",
    "make_loggers",
    "summary_scalars",
]
