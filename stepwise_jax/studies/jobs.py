"""Jobs: the runs of a study, and the progress of each."""

import contextlib
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.workdir.files import RECORDS, SUMMARY

_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Needs:
    """What a job needs of a cluster. On this machine its slot decides, and these are not used."""

    gpus: int = 0
    cpus: int = 1
    minutes: int | None = None
    """The time limit, where the cluster has one."""


@dataclass(frozen=True)
class Job:
    """One run of a study, decided before any of them starts."""

    name: str
    """As shown to people: `baseline, seed 3`."""
    folder: Path
    """The run's workdir."""
    command: tuple[str, ...]
    """Trains the run, or resumes it."""
    samples: int
    """Examples that the whole run trains on, counting each as often as it is seen."""
    needs: Needs = Needs()

    @property
    def log(self) -> Path:
        """The file that collects the output of the run's processes."""
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def done(self) -> bool:
        """Whether the run is finished."""
        return (self.folder / SUMMARY).exists()

    def samples_done(self) -> int:
        """Examples that the run had seen by its last recorded epoch."""
        return self.samples if self.done else min(_examples_seen(self.folder / RECORDS), self.samples)


@dataclass(frozen=True)
class Failure:
    """A run that did not finish."""

    job: Job
    status: int
    """Exit status; negative for a signal."""
    message: str

    def to_dict(self) -> dict[str, Any]:
        """The failure as plain JSON data."""
        return {"run": self.job.name, "status": self.status, "message": self.message}


class StudyObserver:
    """Follows the progress of a study. This base class does nothing."""

    def started(self, job: Job) -> None:
        """A run's process has started."""

    def ended(self, job: Job, failure: Failure | None) -> None:
        """A run's process has ended."""

    def lost(self, job: Job, reason: str) -> None:
        """A run was stopped or lost by its cluster, and will be started again."""

    def progressed(self, running: Sequence[Job], finished: int, samples_done: int) -> None:
        """Called about once a second."""


def describe_exit(job: Job, status: int) -> Failure | None:
    """The failure of a job whose command ended with this exit status, negative for a signal; None for 0."""
    if status == 0:
        return None
    if status < 0:
        return Failure(job, status, f"its process was killed by {_signal_name(-status)}")
    output = [line.removeprefix("error: ") for line in last_lines(job.log) if line.strip()] if job.log.exists() else []
    return Failure(job, status, output[-1] if output else f"its process ended with status {status}")


def _signal_name(number: int) -> str:
    # Real-time signals have no name in Python.
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def last_lines(path: Path) -> list[str]:
    """The lines in the last 4 KiB of a text file."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()


def _examples_seen(path: Path) -> int:
    """The count in the last whole epoch on record; 0 where there is none among the last lines."""
    if not path.exists():
        return 0
    for line in reversed(last_lines(path)):
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and row.get("kind") == "epoch":
                return int(row.get("examples_seen", 0))
    return 0
