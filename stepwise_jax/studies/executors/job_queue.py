"""The jobs of a study that are not finished, and the loop that brings them to an executor.

A run that fails or is killed does not affect the others. A study can be stopped and started again, because each run's
folder says how far the run is. Several processes may work on one study, on any machines that see its folder: each skips
the runs that another is training.
"""

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.runtime.signals import StopRequest
from stepwise_jax.studies.executors.executor import Ended, Executor
from stepwise_jax.studies.jobs import Failure, Job, StudyObserver
from stepwise_jax.workdir import lock

POLL_SECONDS = 1.0

MAX_STARTS = 3
"""How often a job that its cluster loses is started without recording another epoch."""


def run_jobs(jobs: Sequence[Job], executor: Executor, observer: StudyObserver, stop: StopRequest) -> list[Failure]:
    """Run every job that is not finished.

    Returns:
      The runs that failed.

    Raises:
      InterruptedRunError: after a signal, once every run has saved its state and ended.
    """
    queue = _Queue(jobs, executor, observer)
    try:
        while queue.unfinished():
            if stop:
                raise InterruptedRunError(f"stopped by {stop.name}: run the same command to continue")
            queue.submit()
            queue.collect()
            time.sleep(POLL_SECONDS if queue.unfinished() else 0)
    finally:
        executor.stop()
    return queue.failures


class _Queue:
    def __init__(self, jobs: Sequence[Job], executor: Executor, observer: StudyObserver):
        self.failures: list[Failure] = []
        self._jobs, self._executor, self._observer = jobs, executor, observer
        self._waiting = deque(job for job in jobs if not job.done)
        self._submitted, self._started = dict[Path, Job](), set[Path]()
        self._starts: dict[Path, tuple[int, int]] = {}

    def unfinished(self) -> bool:
        return bool(self._waiting or self._submitted)

    def submit(self) -> None:
        """Submit as many waiting jobs as there is room for."""
        due, room = list[Job](), self._executor.room()
        for _ in range(len(self._waiting)):
            if len(due) == room:
                break
            job = self._waiting.popleft()
            if not job.done:
                # A run that another process is training goes to the end of the queue.
                (self._waiting if lock.is_locked(job.folder) else due).append(job)
        if due:
            self._executor.submit(due)
            self._submitted |= {job.folder: job for job in due}
        self._report_started()

    def _report_started(self) -> None:
        for job in self._executor.running():
            if job.folder not in self._started:
                self._started.add(job.folder)
                self._observer.started(job)

    def collect(self) -> None:
        """Take the jobs that have ended from the executor, and report the progress of all."""
        for ended in self._executor.collect():
            del self._submitted[ended.job.folder]
            self._started.discard(ended.job.folder)
            if self._starts_again(ended):
                self._waiting.append(ended.job)
                continue
            self.failures += [ended.failure] if ended.failure else []
            self._observer.ended(ended.job, ended.failure)
        samples = sum(job.samples_done() for job in self._jobs)
        self._observer.progressed(self._executor.running(), sum(job.done for job in self._jobs), samples)

    def _starts_again(self, ended: Ended) -> bool:
        job, failure = ended.job, ended.failure
        if failure is None:
            return False
        if ended.lost and not job.done and self._count_start(job) < MAX_STARTS:
            self._observer.lost(job, failure.message)
            return True
        # Another process may have started this run while ours was starting.
        return job.done or lock.is_locked(job.folder)

    def _count_start(self, job: Job) -> int:
        """How often the job was started since it recorded its last epoch."""
        samples, starts = self._starts.get(job.folder, (0, 0))
        now = job.samples_done()
        self._starts[job.folder] = (now, starts + 1 if now == samples else 1)
        return self._starts[job.folder][1]
