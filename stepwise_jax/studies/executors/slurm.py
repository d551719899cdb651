"""Runs jobs under Slurm, as arrays, by submitit.

Slurm stops a job two minutes before its time limit: the run saves, the job goes back into the queue, and resumes. The
jobs outlive this process. A file beside each run names its job, so that the same command finds it again, on any machine
of the cluster.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.studies.executors import slurm_commands
from stepwise_jax.studies.executors.executor import Ended
from stepwise_jax.studies.executors.slurm_array import MAX_JOBS, read_id, submit_array
from stepwise_jax.studies.jobs import Failure, Job, describe_exit

ASK_SECONDS = 15.0
"""Between two questions to Slurm, which serves a whole cluster."""

_SUBMIT_AGAIN = {"BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT"}


class SlurmExecutor:
    """Runs jobs under Slurm; see `Executor`.

    Args:
      submitit: the module.
      folder: for submitit's files.
      partition: of the jobs; None for Slurm's default.
      at_a_time: the limit on jobs of an array that run at the same time.
    """

    def __init__(self, submitit: Any, folder: Path, partition: str | None = None, at_a_time: int = MAX_JOBS):
        self._submitit, self._folder, self._partition, self._at_a_time = submitit, folder, partition, at_a_time
        self._jobs, self._states = dict[str, Job](), dict[str, str]()
        self._asked, self._absent = 0.0, set[str]()

    def room(self) -> int:
        """See `Executor`."""
        return MAX_JOBS - len(self._jobs)

    def submit(self, jobs: Sequence[Job]) -> None:
        """See `Executor`; a job that an earlier command has submitted is not submitted again."""
        self._ask()
        known = [(read_id(job), job) for job in jobs]
        self._jobs |= {key: job for key, job in known if self._is_active(key)}
        new = [job for key, job in known if not self._is_active(key)]
        submitted = submit_array(self._submitit, self._folder, new, self._partition, self._at_a_time)
        self._jobs |= dict(zip(submitted, new, strict=True))
        self._states |= dict.fromkeys(submitted, "PENDING")

    def running(self) -> Sequence[Job]:
        """See `Executor`."""
        return [job for key, job in self._jobs.items() if self._states.get(key) in ("RUNNING", "COMPLETING")]

    def collect(self) -> Sequence[Ended]:
        """See `Executor`."""
        if self._jobs and time.monotonic() > self._asked + ASK_SECONDS:
            self._ask()
        ended = {key: result for key in self._jobs if (result := self._result(key))}
        self._jobs = {key: job for key, job in self._jobs.items() if key not in ended}
        return list(ended.values())

    def stop(self) -> None:
        """See `Executor`."""
        if self._jobs:
            slurm_commands.cancel(self._jobs)
        while any(map(self._is_active, self._jobs)):
            time.sleep(1)
            self._ask()

    def _ask(self) -> None:
        states = slurm_commands.query_states()
        if states is not None:
            # The file system may be slower than Slurm: the first time that a job has ended, its result may still come.
            self._absent = {key for key in self._jobs if not self._is_active(key)}
            self._states, self._asked = states, time.monotonic()

    def _is_active(self, key: str) -> bool:
        return self._states.get(key, "forgotten") not in {*slurm_commands.FINAL_STATES, "forgotten"}

    def _result(self, key: str) -> Ended | None:
        job, theirs = self._jobs[key], self._submitit.SlurmJob(self._folder, key)
        if theirs.paths.result_pickle.exists():
            try:
                status = theirs.result()
            except Exception as error:  # whatever submitit could not do on the node
                return Ended(job, Failure(job, 1, f"Slurm job {key}: {str(error).strip().splitlines()[-1]}"))
            return Ended(job, describe_exit(job, status), lost=status == InterruptedRunError.status)
        if self._is_active(key) or key not in self._absent:
            return None
        state = self._states.get(key)
        message = f"its Slurm job {key} ended without a result: {state or 'Slurm has forgotten it'}"
        if state == "TIMEOUT":
            message += f", before it had saved within its {job.needs.minutes} min: raise --executor.time"
        return Ended(job, Failure(job, 1, message), lost=state is None or state in _SUBMIT_AGAIN)
