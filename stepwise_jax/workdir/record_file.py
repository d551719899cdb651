"""The records of a run on disk: `records.jsonl`.

It is append-only, one JSON object a line, and everything that shows results reads it. A process may be killed at any
byte, so the last line may be torn; after a resume an epoch may stand twice, and its last row counts. Where the disk is
full, lines wait in memory: a checkpoint that counts on them is not written before they are.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.files import RECORDS
from stepwise_jax.workdir.json_files import finite, read_bytes
from stepwise_jax.workdir.records import EpochRecord, EventRecord, Row, StageRecord, StoredRecord

_REQUIRED = {
    "stage": frozenset(item.name for item in dataclasses.fields(StageRecord)),
    "epoch": frozenset(item.name for item in dataclasses.fields(EpochRecord)),
    "event": frozenset(item.name for item in dataclasses.fields(EventRecord)),
}


@dataclass(frozen=True)
class Records:
    """A run's rows: one for each stage and each (stage, epoch), in order; events as they happened."""

    stages: tuple[Row, ...]
    epochs: tuple[Row, ...]
    events: tuple[Row, ...]


class RecordWriter:
    """Appends to a run's `records.jsonl`; a torn last line is cut off first."""

    def __init__(self, workdir: Path, report: Callable[[str], None] = lambda _: None):
        workdir.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(workdir / RECORDS)
        # Unbuffered: what the disk did not take is known to the byte.
        self._file = open(workdir / RECORDS, "ab", buffering=0)  # noqa: SIM115 (open as long as the writer)
        self._report = report
        self._waiting, self._refused = b"", False

    def append(self, record: StoredRecord) -> None:
        """Writes one whole line before it returns, so that a process killed later cannot lose it.

        Where it cannot be written it waits in memory, and `report` is told; each later line tries again.
        """
        row = {"kind": record.kind, **finite(dataclasses.asdict(record))}
        line = json.dumps(row, allow_nan=False, ensure_ascii=False)
        self._waiting += line.encode(errors="backslashreplace") + b"\n"
        self._write_or_wait()

    def _write_or_wait(self) -> None:
        try:
            self._write()
        except OSError as error:
            if not self._refused:
                self._report(f"{RECORDS} cannot be written ({error.strerror}): its lines wait in memory")
            self._refused = True

    def _write(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]
        if self._refused:
            self._report(f"{RECORDS} is written again, nothing is lost")
        self._refused = False

    def sync(self) -> None:
        """Forces the records to disk: before a checkpoint that counts on them is committed.

        Raises:
          OSError: if a line cannot be written.
        """
        self._write()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        if not self._file.closed:
            self._write_or_wait()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()


class NullRecordWriter(RecordWriter):
    """Writes nothing: of a process beside the one whose records are kept."""

    def __init__(self) -> None:
        pass

    def append(self, record: StoredRecord) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _cut_torn_line(path: Path) -> None:
    """Cuts the file's last line off where its newline is missing or it is not JSON."""
    if not path.exists():
        return
    text = path.read_bytes()
    kept = text[: text.rfind(b"\n") + 1]
    last = kept[kept.rfind(b"\n", 0, -1) + 1 :]
    if last and _parse(last) is None:
        kept = kept[: -len(last)]
    if len(kept) < len(text):
        os.truncate(path, len(kept))


def _parse(line: bytes) -> Row | None:
    """The row on a line, or None where there is no record on it."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    required = _REQUIRED.get(str(row.get("kind"))) if isinstance(row, dict) else None
    return row if required is not None and required <= row.keys() else None


def read_records(workdir: Path) -> Records:
    """A run's records, also while it is being written; a torn last line is passed over.

    Args:
      workdir: the run's folder.

    Returns:
      The last row of each stage and of each (stage, epoch), sorted, and every event.

    Raises:
      InputError: where there is no `records.jsonl`, or one of its lines, not the last, is damaged.
    """
    rows = _rows(workdir / RECORDS)
    stages = {row["stage"]: row for row in rows if row["kind"] == "stage"}
    epochs = {(row["stage"], row["epoch"]): row for row in rows if row["kind"] == "epoch"}
    events = tuple(row for row in rows if row["kind"] == "event")
    return Records(tuple(stages[key] for key in sorted(stages)), tuple(epochs[key] for key in sorted(epochs)), events)


def _rows(path: Path) -> list[Row]:
    # Only what ends with a newline is a line: what comes after the last one is torn.
    *lines, _ = read_bytes(path).split(b"\n")
    rows = [_parse(line) for line in lines]
    if rows and rows[-1] is None:
        rows.pop()
    if None in rows:
        raise InputError(f"{path}, line {rows.index(None) + 1}: it is damaged, there is no record on it")
    return [row for row in rows if row is not None]


def comparable(epoch: Row) -> Row:
    """An epoch's row without its seconds: what two runs of one experiment have in common, bit for bit."""
    return {name: value for name, value in epoch.items() if name != "seconds"}


def without_seconds(epochs: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of `Records.epochs` in their comparable form."""
    return tuple(comparable(epoch) for epoch in epochs)
