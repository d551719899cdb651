"""Runs in Trackio: in a local database by default, or where `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` says."""

import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from stepwise_jax.workdir.loggers.logger import PATIENCE_SECONDS, PROJECT, Logger, RunIdentity, require_library


def log_to_trackio(
    workdir: str | os.PathLike[str],
    study: str | os.PathLike[str] | None = None,
    *,
    patience: float = PATIENCE_SECONDS,
    **settings: Any,
) -> Logger:
    """Return an observer that logs to Trackio.

    Args:
      workdir: of the run.
      study: the folder of the comparison or sweep that holds the workdir: the run's group.
      patience: how many seconds the end of a run waits for the library.
      settings: more arguments of `trackio.init`, such as `project` and `space_id`.

    Raises:
      InputError: if trackio is not installed.
    """
    require_library("trackio", "Trackio")
    return Logger("Trackio", partial(_TrackioRun, settings), workdir, study, patience)


class _TrackioRun:
    def __init__(self, settings: Mapping[str, Any], identity: RunIdentity, fields: Mapping[str, Any]):
        defaults = {
            "project": PROJECT,
            # Trackio finds the run to continue by its name, so that must be unique.
            "name": f"{identity.name} {identity.id[:8]}",
            "group": identity.group,
            "config": dict(fields),
            "resume": "allow",
            # In a notebook it would start a server.
            "embed": False,
        }
        self._run = import_module("trackio").init(**{**defaults, **settings})

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def summarize(self, scalars: Mapping[str, float], step: int) -> None:
        self.log(scalars, step)

    def finish(self, complete: bool) -> None:
        self._run.finish()
