"""Jobs: the runs of a study, and what is known of each while it runs."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stepwise_jax.workdir.files import RECORDS, SUMMARY

_LAST_WORDS = 4096


@dataclass(frozen=True)
class Job:
    """One run of a grid, decided before any of them starts."""

    name: str
    """As a person reads it: `baseline, seed 3`."""
    folder: Path
    """The run's workdir."""
    command: tuple[str, ...]
    """What trains it, or goes on with it."""
    samples: int
    """Examples that the whole run feeds."""

    @property
    def log(self) -> Path:
        """What the run's processes said."""
        return self.folder.with_name(self.folder.name + ".log")

    @property
    def done(self) -> bool:
        """Whether the run is finished."""
        return (self.folder / SUMMARY).exists()

    def samples_done(self) -> int:
        """Examples that the run has fed up to its last recorded epoch."""
        return self.samples if self.done else min(_examples_seen(self.folder / RECORDS), self.samples)


@dataclass(frozen=True)
class Slot:
    """A place for one process at a time: a device, or some of the processor's cores."""

    environment: Mapping[str, str] = field(default_factory=dict)
    cores: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Failure:
    """A run that did not finish."""

    cell: Job
    status: int
    """Exit status; negative for a signal."""
    message: str


class StudyObserver:
    """Is told how a grid goes on; the silent one."""

    def started(self, cell: Job) -> None:
        """A run has a process now."""

    def ended(self, cell: Job, failure: Failure | None) -> None:
        """A run's process has ended."""

    def moved(self, running: Sequence[Job], finished: int, samples_done: int) -> None:
        """Called every second or so."""


def last_lines(path: Path) -> list[str]:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _LAST_WORDS))
        return file.read().decode(errors="replace").splitlines()


def _examples_seen(path: Path) -> int:
    """What the last whole epoch on record tells; 0 where there is none among the last lines."""
    if not path.exists():
        return 0
    for line in reversed(last_lines(path)):
        with contextlib.suppress(ValueError, TypeError):
            row = json.loads(line)
            if isinstance(row, dict) and row.get("kind") == "epoch":
                return int(row.get("examples_seen", 0))
    return 0
