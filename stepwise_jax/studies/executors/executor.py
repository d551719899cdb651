"""The interface of an executor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stepwise_jax.studies.jobs import Failure, Job


@dataclass(frozen=True)
class Ended:
    """A job whose command has ended."""

    job: Job
    failure: Failure | None
    """Why the run did not finish; None if its command succeeded."""
    lost: bool = False
    """Whether the cluster stopped the job or lost its machine, so that it should be started again."""


class Executor(Protocol):
    """Starts jobs, watches them, and stops them.

    A job is a command, a folder, and what it needs. The command resumes the run in the folder, so a job may be started
    any number of times, on any machine that sees the folder. How far a run is, is read from its folder.
    """

    def room(self) -> int:
        """How many jobs `submit` takes now."""
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Start jobs, or put them into the queue of a cluster.

        Args:
          jobs: at most `room()`.
        """
        ...

    def running(self) -> Sequence[Job]:
        """The jobs that have started and have not been collected."""
        ...

    def collect(self) -> Sequence[Ended]:
        """The jobs that have ended since the last call."""
        ...

    def stop(self) -> None:
        """Make every job save and stop, and wait until it has; take those that wait out of the queue."""
        ...
