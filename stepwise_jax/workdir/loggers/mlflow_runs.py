"""Runs in MLflow: in a local database by default, or on the server that `MLFLOW_TRACKING_URI` names."""

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from stepwise_jax.workdir.loggers.logger import PATIENCE_SECONDS, PROJECT, Logger, RunIdentity, require_library

ID_TAG, GROUP_TAG = "stepwise_jax.run_id", "stepwise_jax.group"


def log_to_mlflow(
    workdir: str | os.PathLike[str],
    study: str | os.PathLike[str] | None = None,
    *,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    patience: float = PATIENCE_SECONDS,
) -> Logger:
    """Return an observer that logs to MLflow.

    Args:
      workdir: of the run.
      study: the folder of the comparison or sweep that holds the workdir: the run's tag `stepwise_jax.group`.
      tracking_uri: by default that of MLflow's own settings.
      experiment: MLflow's name for a project; by default `$MLFLOW_EXPERIMENT_NAME` or `stepwise-jax`.
      patience: how many seconds the end of a run waits for the library.

    Raises:
      InputError: if mlflow is not installed.
    """
    require_library("mlflow", "MLflow")
    return Logger("MLflow", partial(_MlflowRun, tracking_uri, experiment), workdir, study, patience)


class _MlflowRun:
    def __init__(
        self, tracking_uri: str | None, experiment: str | None, identity: RunIdentity, fields: Mapping[str, Any]
    ):
        mlflow, entities = import_module("mlflow"), import_module("mlflow.entities")
        uri = tracking_uri or mlflow.get_tracking_uri()
        name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        with _alone_in_database(uri):
            # A client changes no active run of the user's own.
            self._client = mlflow.MlflowClient(uri)
            experiment_id = _open_experiment(self._client, name)
        found = self._client.search_runs([experiment_id], f"tags.`{ID_TAG}` = '{identity.id}'")
        tags = {ID_TAG: identity.id} | ({GROUP_TAG: identity.group} if identity.group else {})
        run = found[0] if found else self._client.create_run(experiment_id, run_name=identity.name, tags=tags)
        self._id = run.info.run_id
        self._client.update_run(self._id, status="RUNNING")
        # A parameter cannot change, but a resumed run may have other fields that do not affect its result.
        if not run.data.params:
            self._client.log_batch(self._id, params=[entities.Param(key, str(value)) for key, value in fields.items()])

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        entities, now = import_module("mlflow.entities"), int(1000 * time.time())
        metrics = [entities.Metric(_metric_name(tag), value, now, step) for tag, value in scalars.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def summarize(self, scalars: Mapping[str, float], step: int) -> None:
        self.log(scalars, step)

    def finish(self, complete: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if complete else "KILLED")


@contextmanager
def _alone_in_database(uri: str) -> Iterator[None]:
    """Keep the machine's other processes out of a local database: two that create its tables at once destroy it."""
    if not uri.startswith("sqlite:"):
        yield
        return
    name = f"stepwise-jax-mlflow-{os.getuid()}-{hashlib.sha256(uri.encode()).hexdigest()[:16]}.lock"
    with open(Path(tempfile.gettempdir()) / name, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open_experiment(client: Any, name: str) -> str:
    """Return the id of an experiment, new or not."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name)
        except import_module("mlflow.exceptions").MlflowException:
            # Another run of the study has just created it.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return found.experiment_id


def _metric_name(tag: str) -> str:
    """Return a tag in the characters that MLflow accepts."""
    return re.sub(r"[^\w./: -]", "_", tag)
