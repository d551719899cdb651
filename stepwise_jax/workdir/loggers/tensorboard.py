"""An observer that writes TensorBoard events."""

import time
from collections.abc import Callable
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from stepwise_jax.workdir.loggers.scalars import epoch_scalars
from stepwise_jax.workdir.records import EndRecord, EpochRecord, Record


class TensorBoard:
    """Writes the scalars of each epoch by step, and by examples seen into a subfolder.

    `records.jsonl` holds all of them too. If an event cannot be written, `report` is called with a message, and the
    next epoch starts new files.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]):
        self._folder, self._report = folder, report
        self._scalars: _Scalars | None = None

    def __call__(self, record: Record) -> None:
        """Write an epoch; close the files at the end of a run."""
        try:
            if isinstance(record, EpochRecord):
                self._scalars = self._scalars or _Scalars(self._folder, record)
                self._scalars.add(record)
            elif isinstance(record, EndRecord) and self._scalars:
                self._scalars.close()
        except OSError as error:
            self._scalars = None
            self._report(f"the TensorBoard events of an epoch cannot be written ({error.strerror})")


class _Scalars:
    """Two event files, one for each horizontal axis.

    They are in separate folders because a resume writes a session start, which makes TensorBoard hide earlier events
    from that step on; and that step is on the same axis for all tags of a folder.
    """

    def __init__(self, folder: Path, first: EpochRecord):
        self._by_step = _open_events(folder, first.step)
        self._by_examples = _open_events(folder / "by_examples", first.examples_seen)

    def add(self, record: EpochRecord) -> None:
        for tag, value in epoch_scalars(record).items():
            _add_scalar(self._by_step, tag, value, record.step)
            _add_scalar(self._by_examples, f"by_examples/{tag}", value, record.examples_seen)
        # Without a flush, TensorBoard would never get the last epochs of a killed run.
        self._by_step.flush()
        self._by_examples.flush()

    def close(self) -> None:
        self._by_step.close()
        self._by_examples.close()


def _open_events(folder: Path, first_step: int) -> EventsWriter:
    folder.mkdir(parents=True, exist_ok=True)
    # Event files are named by the second: the number keeps a quick resume from overwriting the previous file.
    number = sum(1 for _ in folder.glob("events.out.tfevents.*"))
    events = EventsWriter(str(folder / "events"), f".{number:04d}")
    start = SessionLog(status=SessionLog.START)
    events.write_event(Event(wall_time=time.time(), step=first_step, session_log=start))
    return events


def _add_scalar(events: EventsWriter, tag: str, value: float, step: int) -> None:
    events.write_event(Event(wall_time=time.time(), step=step, summary=scalar(tag, value)))
