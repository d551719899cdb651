"""The records of a run on disk: `records.jsonl`.

The file is append-only, with one JSON object per line; reports and tables are made from it. A process may be killed at
any byte, so the last line may be incomplete. After a resume an epoch may occur twice: its last row counts. When the
disk is full, lines wait in memory, and no checkpoint that depends on them is written before they are.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.files import RECORDS, open_file
from stepwise_jax.workdir.json_files import non_finite_to_null, read_run_file
from stepwise_jax.workdir.records import EpochRecord, EventRecord, NoiseRecord, Row, StageRecord, StoredRecord

_NEWER = frozenset({"metrics"})

_REQUIRED = {
    kind: frozenset(item.name for item in dataclasses.fields(record) if item.default is dataclasses.MISSING) - _NEWER
    for kind, record in (
        ("stage", StageRecord),
        ("epoch", EpochRecord),
        ("noise", NoiseRecord),
        ("event", EventRecord),
    )
}
"""The fields without a default, but for newer ones, which older runs did not record."""

_KEYS = {"stage": int, "epoch": int, "side": str, "statistics": str}
"""The fields that identify rows and sort them, and their types."""


@dataclass(frozen=True)
class RunRecords:
    """The rows of `records.jsonl`: sorted, one of each; events in the file's order."""

    stages: tuple[Row, ...]
    epochs: tuple[Row, ...]
    events: tuple[Row, ...]
    noise: tuple[Row, ...] = ()
    """One for each (stage, side, statistics): a stage's start before its end."""


class RecordWriter:
    """Appends to a run's `records.jsonl`, after cutting off an incomplete last line."""

    def __init__(self, workdir: Path, report: Callable[[str], None] = lambda _: None):
        workdir.mkdir(parents=True, exist_ok=True)
        _cut_incomplete_line(workdir / RECORDS)
        # Unbuffered: after an error it is known exactly which bytes were not written.
        self._file = open(workdir / RECORDS, "ab", buffering=0)  # noqa: SIM115 (open as long as the writer)
        self._report = report
        self._waiting, self._failing = b"", False

    def append(self, record: StoredRecord) -> None:
        """Write one whole line before returning, so that a process killed later cannot lose it.

        A line that cannot be written waits in memory, and `report` is called with a message; later lines try again.
        """
        row = {"kind": record.kind, **non_finite_to_null(dataclasses.asdict(record))}
        line = json.dumps(row, allow_nan=False, ensure_ascii=False)
        self._waiting += line.encode(errors="backslashreplace") + b"\n"
        self._write_or_wait()

    def _write_or_wait(self) -> None:
        try:
            self._write()
        except OSError as error:
            if not self._failing:
                self._report(f"{RECORDS} cannot be written ({error.strerror}): its lines wait in memory")
            self._failing = True

    def _write(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]
        if self._failing:
            self._report(f"{RECORDS} can be written again; nothing is lost")
        self._failing = False

    def sync(self) -> None:
        """Force the records to disk, which is done before a checkpoint that depends on them.

        Raises:
          OSError: if a line cannot be written.
        """
        self._write()
        os.fsync(self._file.fileno())

    def flush(self) -> None:
        """Try again to write the lines that wait in memory."""
        self._write_or_wait()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if not self._file.closed:
            self.flush()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()


class NullRecordWriter(RecordWriter):
    """Writes nothing; for every process but the first."""

    def __init__(self) -> None:
        pass

    def append(self, record: StoredRecord) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _cut_incomplete_line(path: Path) -> None:
    """Cut off the last line of a file if its newline is missing or it is no record."""
    if not path.exists():
        return
    with open_file(path) as file:
        text = file.read()
    kept = text[: text.rfind(b"\n") + 1]
    last = kept[kept.rfind(b"\n", 0, -1) + 1 :]
    if last and _parse(last) is None:
        kept = kept[: -len(last)]
    if len(kept) < len(text):
        os.truncate(path, len(kept))


def _parse(line: bytes) -> Row | None:
    """Parse a line; None if it holds no record."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    required = _REQUIRED.get(str(row.get("kind"))) if isinstance(row, dict) else None
    complete = required is not None and required <= row.keys()
    return row if complete and all(isinstance(row.get(name, kind()), kind) for name, kind in _KEYS.items()) else None


def read_records(workdir: Path) -> RunRecords:
    """Read a run's records, also while they are being written; an incomplete last line is skipped.

    Args:
      workdir: the run's folder.

    Returns:
      The last row of each stage, (stage, epoch) and measurement, sorted, and every event.

    Raises:
      InputError: if there is no `records.jsonl`, or a line other than the last is damaged.
    """
    rows = _rows(workdir / RECORDS)
    stages = {row["stage"]: row for row in rows if row["kind"] == "stage"}
    epochs = {(row["stage"], row["epoch"]): row for row in rows if row["kind"] == "epoch"}
    events = tuple(row for row in rows if row["kind"] == "event")
    noise = {_noise_key(row): row for row in rows if row["kind"] == "noise"}
    return RunRecords(_sorted_by_key(stages), _sorted_by_key(epochs), events, _sorted_by_key(noise))


def _noise_key(row: Row) -> tuple[int, bool, str]:
    return row["stage"], row["side"] == "end", row["statistics"]


def _sorted_by_key(rows: Mapping[Any, Row]) -> tuple[Row, ...]:
    return tuple(rows[key] for key in sorted(rows))


def _rows(path: Path) -> list[Row]:
    # A line ends with a newline: the text after the last newline is incomplete.
    *lines, _ = read_run_file(path).split(b"\n")
    rows = [_parse(line) for line in lines]
    if rows and rows[-1] is None:
        rows.pop()
    if None in rows:
        raise InputError(f"{path}, line {rows.index(None) + 1}: the line is damaged: it holds no record")
    return [row for row in rows if row is not None]


def without_seconds(epochs: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of epochs without their seconds: two runs of one experiment agree on these bit for bit."""
    return tuple({name: value for name, value in epoch.items() if name != "seconds"} for epoch in epochs)
