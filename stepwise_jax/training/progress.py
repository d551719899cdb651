"""The progress of a run: positions in training, observers, and the log that calls them."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from stepwise_jax.errors import describe_error
from stepwise_jax.plans.stage import Stage
from stepwise_jax.workdir.files import TENSORBOARD
from stepwise_jax.workdir.loggers.tensorboard import TensorBoard
from stepwise_jax.workdir.record_file import NullRecordWriter, RecordWriter
from stepwise_jax.workdir.records import EndRecord, EventRecord, PreparationRecord, Record, StoredRecord


@dataclass(frozen=True)
class Position:
    """A position in training, as stored in checkpoints, with running sums over its epoch and run."""

    stage: int = 1
    """From 1; one past the last stage when the run is done."""
    epoch: int = 1
    """From 1 within the stage."""
    step: int = 0
    """Completed steps of this epoch; all of them if only its scores are missing."""
    updates: int = 0
    """Completed steps of the run."""
    examples_seen: int = 0
    loss_sum: float = 0.0
    """Sum over this epoch's steps."""
    best_top1: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of this epoch by kind, earlier processes included."""
    setbacks: tuple[int, ...] = ()
    """Stages, from 1, that restarted with a lower rate after a loss that was not finite, once for each restart."""

    def document(self) -> dict[str, Any]:
        """Plain JSON data."""
        return dataclasses.asdict(self) | {"setbacks": list(self.setbacks)}


def position_from_document(document: Mapping[str, Any]) -> Position:
    """Invert `Position.document`; checkpoints of older versions have no `setbacks`."""
    return Position(**{**document, "setbacks": tuple(document.get("setbacks", ()))})


def updates_before(stages: Sequence[Stage], number: int) -> int:
    """Return the steps of the run before stage `number`, from 1."""
    return sum(stage.updates for stage in stages[: number - 1])


class Observer(Protocol):
    """A function of a record: a display or a logger. It watches a run and cannot control it."""

    def __call__(self, record: Record, /) -> None:
        """Handle one record; ignore records of other kinds."""
        ...


def notify_end(observers: Iterable[Observer]) -> None:
    """Notify observers that the run ends, so that a display restores the terminal."""
    for observer in observers:
        observer(EndRecord())


SECONDS_BETWEEN_WARNINGS = 60.0
"""Of one problem that lasts: it may occur at every step."""


class RunLog:
    """Writes the records of a run and calls its observers; a context that ends with an `EndRecord`.

    An observer that raises is dropped, and the records say so: training does not depend on observers.
    """

    def __init__(self, folder: Path | None, observers: Sequence[Observer]):
        """Open the log.

        Args:
          folder: the run's workdir; None in all processes but the first, which write nothing.
          observers: called with every record, in this order.
        """
        self._observers: list[Observer] = list(observers)
        self._untaken: deque[Record] = deque()
        self._warned: dict[str, float] = {}
        self._writer = NullRecordWriter() if folder is None else RecordWriter(folder, self._report)
        if folder is not None:
            self._observers.append(TensorBoard(folder / TENSORBOARD, self._report))

    def record(self, record: StoredRecord) -> None:
        """Write a record and pass it to the observers."""
        self._writer.append(record)
        self.show(record)

    def event(self, name: str, message: str) -> None:
        """Write an event and pass it to the observers."""
        self.record(EventRecord(name, message))

    def warn(self, name: str, problem: str, message: str) -> None:
        """Write an event and pass it to the observers, unless one of the same problem is less than a minute old."""
        now = time.monotonic()
        if now - self._warned.get(problem, -math.inf) >= SECONDS_BETWEEN_WARNINGS:
            self._warned[problem] = now
            self.event(name, message)

    def write_event(self, name: str, message: str) -> None:
        """Write an event without notifying the observers."""
        self._writer.append(EventRecord(name, message))

    def show(self, record: Record) -> None:
        """Pass a record to the observers without writing it."""
        self._untaken.append(record)
        for observer in tuple(self._observers):
            try:
                observer(record)
            except Exception as error:
                self._observers.remove(observer)
                name = getattr(observer, "__name__", type(observer).__name__)
                self.event("observer", f"the observer {name} failed ({describe_error(error)}): it is no longer called")

    def take(self) -> Iterator[Record]:
        """Yield the records since the last call."""
        while self._untaken:
            yield self._untaken.popleft()

    def show_preparation(self, done: int, total: int, what: str) -> None:
        """Notify the observers that `done` of `total` items are ready: a progress callback for the data pipeline."""
        self.show(PreparationRecord(done, total, what))

    def sync(self) -> None:
        """Flush the records to disk.

        Raises:
          OSError: if a line cannot be written.
        """
        self._writer.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._writer.flush()
        self.show(EndRecord())
        self._writer.close()

    def _report(self, message: str) -> None:
        """Notify the observers of a record that cannot be written."""
        self.show(EventRecord("records", message))
