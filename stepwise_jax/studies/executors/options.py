"""The options `--executor` and `--executor.*`, and the executor that they name."""

import dataclasses
import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, require
from stepwise_jax.studies.executors import ray as ray_executor
from stepwise_jax.studies.executors.executor import Executor
from stepwise_jax.studies.executors.local import LocalExecutor
from stepwise_jax.studies.executors.slots import default_processes, make_slots
from stepwise_jax.studies.executors.slurm import SlurmExecutor
from stepwise_jax.studies.executors.slurm_array import MAX_JOBS
from stepwise_jax.studies.executors.slurm_commands import check_slurm
from stepwise_jax.studies.jobs import Needs


@dataclass(frozen=True)
class ExecutorOptions:
    """What the command line says about where jobs run; None where it says nothing."""

    name: str = "local"
    processes: int = 0
    """Runs at the same time; 0 for the executor's default."""
    partition: str | None = None
    time: int | None = None
    """Minutes."""
    address: str | None = None
    gpus: int | None = None
    cpus: int | None = None

    def needs(self) -> Needs:
        """What each job needs."""
        return Needs(self.gpus or 0, self.cpus or 1, self.time)


def _make_local(options: ExecutorOptions, _: Path) -> Executor:
    return LocalExecutor(make_slots(options.processes or default_processes()))


def _make_slurm(options: ExecutorOptions, folder: Path) -> Executor:
    # Otherwise submitit configures the logging of this process.
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
    submitit = _import_extra("submitit", "slurm")
    require(options.time is not None, "--executor.time", None, "the minutes that Slurm gives each job")
    check_slurm(options.needs(), options.partition)
    return SlurmExecutor(submitit, folder / ".slurm", options.partition, options.processes or MAX_JOBS)


def _make_ray(options: ExecutorOptions, _: Path) -> Executor:
    ray = _import_extra("ray", "ray")
    ray_executor.connect(ray, options.address)
    return ray_executor.RayExecutor(ray, options.processes or ray_executor.MAX_JOBS)


def _import_extra(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"--executor {extra} needs {package}: pip install 'stepwise-jax[{extra}]'") from error


_EXECUTORS: dict[str, tuple[Callable[[ExecutorOptions, Path], Executor], tuple[str, ...]]] = {
    "local": (_make_local, ()),
    "slurm": (_make_slurm, ("partition", "time", "gpus", "cpus")),
    "ray": (_make_ray, ("address", "gpus", "cpus")),
}
"""By name: the function of the options and the study's folder that makes it, and the options that it takes."""

OPTIONS = tuple(each.name for each in dataclasses.fields(ExecutorOptions) if each.name not in ("name", "processes"))
"""The names NAME of `--executor.NAME`."""


def make_executor(options: ExecutorOptions, folder: Path) -> Executor:
    """The executor that the options name, connected to its cluster.

    Args:
      options: of the command line.
      folder: of the study.

    Raises:
      InputError: for an unknown name, an option of another executor, a package that is missing, or a cluster that
        refuses such jobs or does not answer.
    """
    require(options.processes >= 0, "--processes", options.processes, "at least 1, or 0 for the default")
    known = ", ".join(_EXECUTORS)
    require(options.name in _EXECUTORS, "--executor", options.name, f"one of {known}")
    make, taken = _EXECUTORS[options.name]
    for name in OPTIONS:
        _check_option(name, getattr(options, name), options.name, taken)
    return make(options, folder)


def _check_option(name: str, value: str | int | None, executor: str, taken: Sequence[str]) -> None:
    if value is not None and name not in taken:
        takers = " or ".join(other for other, (_, names) in _EXECUTORS.items() if name in names)
        raise InputError(f"--executor.{name} is an option of --executor {takers}: leave it out with {executor}")
    if isinstance(value, int):
        least = 0 if name == "gpus" else 1
        require(value >= least, f"--executor.{name}", value, f"at least {least}")
