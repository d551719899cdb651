"""Where a run is, and who is informed of it: positions in training, observers, and the log that calls them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from stepwise_jax.errors import describe_error
from stepwise_jax.plans.stage import Stage
from stepwise_jax.workdir.files import TENSORBOARD
from stepwise_jax.workdir.record_file import NullRecordWriter, RecordWriter
from stepwise_jax.workdir.records import EndRecord, EventRecord, PreparationRecord, Record, StoredRecord
from stepwise_jax.workdir.tensorboard import TensorBoard


@dataclass(frozen=True)
class Position:
    """A position in training as checkpoints keep it, with the sums of what came before it in its epoch and run."""

    stage: int = 1
    """From 1; one past the last stage when the run is done."""
    epoch: int = 1
    """From 1 within the stage."""
    step: int = 0
    """Steps of this epoch that are done; all of them where the epoch is not scored yet."""
    updates: int = 0
    """Steps of the run that are done."""
    examples_seen: int = 0
    loss_sum: float = 0.0
    """Over this epoch's steps."""
    best_top1: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Of this epoch, by kind, in earlier processes too."""
    setbacks: tuple[int, ...] = ()
    """Stages, from 1, that were restarted with a lower rate because the loss was not finite, once for each time."""

    def document(self) -> dict[str, Any]:
        """Plain JSON data."""
        return dataclasses.asdict(self) | {"setbacks": list(self.setbacks)}


def position_from(document: Mapping[str, Any]) -> Position:
    """The inverse of `Position.document`; runs of older versions did not record that there were no setbacks."""
    return Position(**{**document, "setbacks": tuple(document.get("setbacks", ()))})


def updates_before(stages: Sequence[Stage], number: int) -> int:
    """Steps of the run that are done when stage `number`, from 1, begins."""
    return sum(stage.updates for stage in stages[: number - 1])


class Observer(Protocol):
    """A function of a record: a display, a logger. It watches a run and cannot steer it."""

    def __call__(self, record: Record, /) -> None:
        """Takes one record; records of kinds that do not concern it are ignored."""
        ...


def end(observers: Iterable[Observer]) -> None:
    """Tells observers that the run ends, so that a display gives the terminal back."""
    for observer in observers:
        observer(EndRecord())


class RunLog:
    """Writes the records of a run and calls its observers; a context that ends with an `EndRecord`.

    An observer that raises is dropped, which is noted on the record: training does not depend on it.
    """

    def __init__(self, folder: Path | None, observers: Sequence[Observer]):
        """Opens the log.

        Args:
          folder: the run's workdir; None in processes beside the first one, which write nothing.
          observers: called with every record, in this order.
        """
        self._observers: list[Observer] = list(observers)
        self._writer = NullRecordWriter() if folder is None else RecordWriter(folder, self._report)
        if folder is not None:
            self._observers.append(TensorBoard(folder / TENSORBOARD, self._report))

    def record(self, record: StoredRecord) -> None:
        """Writes a record and shows it."""
        self._writer.append(record)
        self.show(record)

    def event(self, name: str, message: str) -> None:
        """Writes and shows an event."""
        self.record(EventRecord(name, message))

    def write_event(self, name: str, message: str) -> None:
        """Writes an event that is not shown."""
        self._writer.append(EventRecord(name, message))

    def show(self, record: Record) -> None:
        """Calls every observer, and writes nothing."""
        for observer in tuple(self._observers):
            try:
                observer(record)
            except Exception as error:
                self._observers.remove(observer)
                name = getattr(observer, "__name__", type(observer).__name__)
                self.event("observer", f"the observer {name} failed ({describe_error(error)}): it is no longer called")

    def prepared(self, done: int, total: int, what: str) -> None:
        """Shows that `done` of `total` are ready: a progress callback for the data pipeline."""
        self.show(PreparationRecord(done, total, what))

    def sync(self) -> None:
        """Forces the records to disk.

        Raises:
          OSError: if a line cannot be written.
        """
        self._writer.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._writer.close()
        self.show(EndRecord())

    def _report(self, message: str) -> None:
        """Shows what cannot be written."""
        self.show(EventRecord("records", message))
