"""The loop over the jobs of a study, with an executor that loses them."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from stepwise_jax.runtime.signals import PARENT, StopRequest
from stepwise_jax.studies.executors import job_queue, ray_task
from stepwise_jax.studies.executors.executor import Ended
from stepwise_jax.studies.executors.job_queue import run_jobs
from stepwise_jax.studies.jobs import Failure, Job, StudyObserver


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(job_queue, "POLL_SECONDS", 0)


class Losing:
    """Loses every job so many times, each time after a given number of epochs, and then finishes it."""

    def __init__(self, losses: int, epochs: int):
        self.losses, self.epochs, self.starts = losses, epochs, 0
        self.jobs: list[Job] = []

    def room(self) -> int:
        return 1 - len(self.jobs)

    def submit(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs
        self.starts += len(jobs)

    def running(self) -> Sequence[Job]:
        return self.jobs

    def collect(self) -> Sequence[Ended]:
        jobs, self.jobs = self.jobs, []
        return [self._end(job) for job in jobs]

    def _end(self, job: Job) -> Ended:
        job.folder.mkdir(exist_ok=True)
        if self.starts > self.losses:
            (job.folder / "summary.json").write_text("{}")
            return Ended(job, None)
        with open(job.folder / "records.jsonl", "a") as records:
            for _ in range(self.epochs):
                records.write(json.dumps({"kind": "epoch", "examples_seen": 10 * self.starts}) + "\n")
        return Ended(job, Failure(job, 1, "its node was lost"), lost=True)

    def stop(self) -> None:
        assert not self.jobs


class Log(StudyObserver):
    def __init__(self):
        self.rows: list[str] = []

    def started(self, job: Job) -> None:
        self.rows.append("started")

    def lost(self, job: Job, reason: str) -> None:
        self.rows.append(reason)

    def ended(self, job: Job, failure: Failure | None) -> None:
        self.rows.append(f"failed: {failure.message}" if failure else "done")


def run(folder: Path, executor: Losing) -> tuple[list[Failure], list[str]]:
    log = Log()
    return run_jobs([Job("a", folder / "a", (), 1000)], executor, log, StopRequest()), log.rows


def test_a_job_that_is_lost_starts_again_as_long_as_it_advances(tmp_path):
    failures, rows = run(tmp_path, Losing(5, epochs=1))
    assert failures == []
    assert rows == ["started", "its node was lost"] * 5 + ["started", "done"]


def test_a_job_that_is_lost_three_times_without_an_epoch_has_failed(tmp_path):
    failures, rows = run(tmp_path, Losing(5, epochs=0))
    assert [each.message for each in failures] == ["its node was lost"]
    assert rows == [*["started", "its node was lost"] * 2, "started", "failed: its node was lost"]


def test_a_task_of_ray_names_its_worker_as_the_parent():
    """A worker imports nothing of this package."""
    assert ray_task._PARENT == PARENT
