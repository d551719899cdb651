"""Runs in Weights & Biases. With `WANDB_MODE=offline` they stay in the workdir until `wandb sync` sends them."""

import os
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any

from stepwise_jax.errors import InputError, first_line
from stepwise_jax.workdir.loggers.logger import PATIENCE_SECONDS, PROJECT, Logger, RunIdentity, require_library


def log_to_wandb(
    workdir: str | os.PathLike[str],
    study: str | os.PathLike[str] | None = None,
    *,
    patience: float = PATIENCE_SECONDS,
    **settings: Any,
) -> Logger:
    """Return an observer that logs to Weights & Biases.

    Args:
      workdir: of the run.
      study: the folder of the comparison or sweep that holds the workdir: the run's group.
      patience: how many seconds the end of a run waits for the library.
      settings: more arguments of `wandb.init`, such as `project`, `entity`, `tags` and `mode`; wandb's environment
        variables count too.

    Raises:
      InputError: if wandb is not installed, or has no valid API key and is not offline.
    """
    require_library("wandb", "Weights & Biases")
    if "mode" not in settings:
        _check_credentials()
    return Logger("Weights & Biases", partial(_WandbRun, settings, patience), workdir, study, patience)


def _check_credentials() -> None:
    wandb = import_module("wandb")
    try:
        # Without a key, wandb would ask for one in the background thread.
        offline = wandb.setup().settings.mode not in ("online", "run")
        has_key = offline or wandb.login(prompt=False, verify=False)
    except wandb.Error as error:
        raise InputError(f"Weights & Biases cannot log in: {first_line(error)}") from error
    if not has_key:
        raise InputError("Weights & Biases has no API key: run `wandb login`, or set WANDB_MODE=offline")


class _WandbRun:
    def __init__(self, settings: Mapping[str, Any], patience: float, identity: RunIdentity, fields: Mapping[str, Any]):
        wandb = import_module("wandb")
        defaults = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "id": identity.id,
            "name": identity.name,
            "group": identity.group,
            "dir": os.environ.get("WANDB_DIR", str(identity.folder)),
            "config": dict(fields),
            "resume": "allow",
            # A run of the user's own stays active.
            "reinit": "create_new",
            # Captured output would disturb the live display.
            "settings": wandb.Settings(console="off", finish_timeout=patience),
        }
        self._run = wandb.init(**{**defaults, **settings})
        # wandb's own step never goes back, but a resumed run may repeat an epoch.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log({**scalars, "step": step})

    def summarize(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.summary.update({**scalars, "step": step})

    def finish(self, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)
