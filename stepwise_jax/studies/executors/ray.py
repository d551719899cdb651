"""Runs jobs as tasks of a Ray cluster.

The tasks end with this process. A job whose worker or machine is lost is submitted again, and Ray finds another place
for it.
"""

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, InterruptedRunError, first_line
from stepwise_jax.studies.executors import ray_task
from stepwise_jax.studies.executors.executor import Ended
from stepwise_jax.studies.jobs import Failure, Job, describe_exit
from stepwise_jax.workdir import lock

MAX_JOBS = 1000
"""Tasks that wait in Ray's own queue, or run."""


class RayExecutor:
    """Runs jobs on a Ray cluster; see `Executor`.

    Args:
      ray: the module, connected to a cluster.
      at_a_time: the limit on jobs that run at the same time.
    """

    def __init__(self, ray: Any, at_a_time: int = MAX_JOBS):
        self._ray, self._at_a_time = ray, at_a_time
        self._jobs = dict[Any, Job]()
        # A worker need not be able to import this package: only the job's command does.
        ray.cloudpickle.register_pickle_by_value(ray_task)
        self._task = ray.remote(ray_task.run_command)

    def room(self) -> int:
        """See `Executor`."""
        return self._at_a_time - len(self._jobs)

    def submit(self, jobs: Sequence[Job]) -> None:
        """See `Executor`."""
        environment = dict(os.environ)
        for job in jobs:
            # Not retried by Ray: the run of a worker that died may still be saving.
            task = self._task.options(num_cpus=job.needs.cpus, num_gpus=job.needs.gpus, max_retries=0, name=job.name)
            self._jobs[task.remote(job.command, job.log.absolute(), Path.cwd(), environment)] = job

    def running(self) -> Sequence[Job]:
        """See `Executor`."""
        return [job for job in self._jobs.values() if lock.is_locked(job.folder)]

    def collect(self) -> Sequence[Ended]:
        """See `Executor`."""
        tasks = list(self._jobs)
        ready, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0) if tasks else ([], [])
        return [self._result(task, self._jobs.pop(task)) for task in ready]

    def stop(self) -> None:
        """See `Executor`."""
        for task in self._jobs:
            self._ray.cancel(task)
        if self._jobs:
            self._ray.wait(list(self._jobs), num_returns=len(self._jobs))

    def _result(self, task: Any, job: Job) -> Ended:
        try:
            status = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            return Ended(job, Failure(job, 1, f"its Ray task failed: {first_line(error.cause)}"))
        except self._ray.exceptions.RayError as error:
            return Ended(job, Failure(job, 1, f"its Ray worker was lost ({type(error).__name__})"), lost=True)
        return Ended(job, describe_exit(job, status), lost=status == InterruptedRunError.status)


def connect(ray: Any, address: str | None) -> None:
    """Connect this process to a Ray cluster.

    Args:
      ray: the module.
      address: HOST:PORT; None for `RAY_ADDRESS`, or the cluster that this machine belongs to.

    Raises:
      InputError: if there is none.
    """
    if address is not None:
        _check_address(address)
    try:
        ray.init(address or "auto", logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        where = f"the one at {address}" if address else "one on this machine, and --executor.address names no other"
        raise InputError(f"--executor ray needs a Ray cluster, and cannot join {where}: {first_line(error)}") from error


def _check_address(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--executor.address is {address!r}: it must be HOST:PORT of a Ray cluster")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--executor.address is {address!r}, which cannot be reached: {reason}") from error
