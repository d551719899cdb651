"""The rows of a run: `records.jsonl`.

It is append-only, one JSON object a line, and everything that shows results reads it. A process may be killed at any
byte, so the last line may be torn; after a resume an epoch may stand twice, and its last row counts. Where the disk is
full, lines wait in memory: a checkpoint that counts on them is not written before they are.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.json_files import finite, read_bytes
from stepwise_jax.workdir.tensorboard import Scalars

Row = dict[str, Any]

FILE = "records.jsonl"

SECONDS = ("train", "input_wait", "compile", "evaluate", "checkpoint")
"""What the time of an epoch is split into."""


@dataclass(frozen=True)
class StageRecord:
    """Written when a stage starts: its plan, and the subset it trains on."""

    stage: int
    """Place in the plan, from 1."""
    name: str
    """The paper's letter: A, B, C, D or O."""
    fraction: float
    examples: int
    batch_size: int
    learning_rate: float
    milestones: Sequence[int]
    """Completed epochs of the stage at which the rate decays."""
    epochs: int
    updates: int
    """Optimiser steps of the whole stage."""
    samples: int
    """Nominal cost: epochs times examples."""
    noise_scale: float
    """Eq. 10, at the stage's first rate."""
    noise_scale_exact: float
    """Eq. 5, at the stage's first rate."""
    split: str
    """How the subset is drawn, `train[:287]` say."""
    sha256: str
    """Hash of the subset's ordered example ids."""
    kind: str = "stage"


@dataclass(frozen=True)
class EpochRecord:
    """Written when an epoch is done. Accuracies are fractions; scores are None where the epoch was not evaluated."""

    stage: int
    """Place in the plan, from 1."""
    stage_name: str
    epoch: int
    """Within the stage, from 1."""
    step: int
    """Optimiser steps in the whole run so far."""
    examples_seen: int
    """Examples really fed in the whole run so far."""
    updates: int
    """Optimiser steps in the whole run so far, as `step`."""
    learning_rate: float
    """Of this epoch, for the mean gradient."""
    batch_size: int
    noise_scale: float
    """Eq. 10, at this epoch's rate."""
    train_loss: float
    test_loss: float | None
    top1: float | None
    top5: float | None
    best_top1: float | None
    """Highest top-1 of the run so far."""
    seconds: Mapping[str, float]
    """Seconds by kind, one entry for each of `SECONDS`."""
    kind: str = "epoch"


@dataclass(frozen=True)
class EventRecord:
    """Something that happened in between: start, resume, checkpoint, compile, fallback, done."""

    name: str
    message: str
    time: float = dataclasses.field(default_factory=time.time)
    """Seconds since 1970-01-01 UTC."""
    kind: str = "event"


Record = StageRecord | EpochRecord | EventRecord

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


class Writer:
    """Appends to a run's `records.jsonl` and to its TensorBoard events; a torn last line is cut off first."""

    def __init__(self, workdir: Path, report: Callable[[str], None] = lambda _: None):
        workdir.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(workdir / FILE)
        # Unbuffered: what the disk did not take is known to the byte.
        self._file = open(workdir / FILE, "ab", buffering=0)  # noqa: SIM115 (open as long as the writer)
        self._folder, self._report = workdir / "tensorboard", report
        self._scalars: Scalars | None = None
        self._waiting, self._refused = b"", False

    def append(self, record: Record) -> None:
        """Writes one whole line before it returns, so that a process killed later cannot lose it.

        Where it cannot be written it waits in memory, and `report` is told; each later line tries again.
        """
        row = {"kind": record.kind, **finite(dataclasses.asdict(record))}
        line = json.dumps(row, allow_nan=False, ensure_ascii=False)
        self._waiting += line.encode(errors="backslashreplace") + b"\n"
        self._write_or_wait()
        if isinstance(record, EpochRecord):
            self._draw(row)

    def _write_or_wait(self) -> None:
        try:
            self._write()
        except OSError as error:
            if not self._refused:
                self._report(f"{FILE} cannot be written ({error.strerror}): its lines wait in memory")
            self._refused = True

    def _write(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]
        if self._refused:
            self._report(f"{FILE} is written again, nothing is lost")
        self._refused = False

    def _draw(self, row: Row) -> None:
        try:
            self._scalars = self._scalars or Scalars(self._folder, row)
            self._scalars.add(row)
        except OSError as error:
            # The records hold all of it: TensorBoard's files begin anew with the next epoch.
            self._scalars = None
            self._report(f"TensorBoard's events of an epoch cannot be written ({error.strerror})")

    def sync(self) -> None:
        """Forces the records to disk: before a checkpoint that counts on them is committed.

        Raises:
          OSError: if a line cannot be written.
        """
        self._write()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes both; a second call does nothing."""
        if not self._file.closed:
            self._write_or_wait()
        self._file.close()
        if self._scalars is not None:
            with contextlib.suppress(OSError):
                self._scalars.close()
            self._scalars = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()


class Discarding(Writer):
    """Writes nothing: of a process beside the one whose records are kept."""

    def __init__(self) -> None:
        pass

    def append(self, record: Record) -> None:
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


def read(workdir: Path) -> Records:
    """A run's records, also while it is being written; a torn last line is passed over.

    Args:
      workdir: the run's folder.

    Returns:
      The last row of each stage and of each (stage, epoch), sorted, and every event.

    Raises:
      InputError: where there is no `records.jsonl`, or one of its lines, not the last, is damaged.
    """
    rows = _rows(workdir / FILE)
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
