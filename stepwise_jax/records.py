"""What a run leaves behind as text: `records.jsonl`, TensorBoard events, and its JSON documents.

`records.jsonl` is append-only, one JSON object a line, and everything that shows results reads it. A process may be
killed at any byte, so the last line may be torn; after a resume an epoch may stand twice, and its last row counts.
"""

import dataclasses
import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar

from stepwise_jax.errors import InputError

Row = dict[str, Any]

FILE = "records.jsonl"
SECONDS = ("train", "input_wait", "compile", "evaluate", "checkpoint")
"""What the time of an epoch is split into."""

_TAGS = {
    "test/top1": "top1",
    "test/top5": "top5",
    "test/loss": "test_loss",
    "train/loss": "train_loss",
    "schedule/learning_rate": "learning_rate",
    "schedule/batch_size": "batch_size",
    "schedule/noise_scale": "noise_scale",
}


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

    def __init__(self, workdir: Path):
        workdir.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(workdir / FILE)
        self._file = open(workdir / FILE, "ab")  # noqa: SIM115 (open as long as the writer)
        self._folder = workdir / "tensorboard"
        self._scalars: _Scalars | None = None

    def append(self, record: Record) -> None:
        """Writes one whole line before it returns, so that a process killed later cannot lose it."""
        row = {"kind": record.kind, **_finite(dataclasses.asdict(record))}
        line = json.dumps(row, allow_nan=False, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        if isinstance(record, EpochRecord):
            self._scalars = self._scalars or _Scalars(self._folder, record)
            self._scalars.add(record)

    def sync(self) -> None:
        """Forces the records to disk: before a checkpoint that counts on them is committed."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes both; a second call does nothing."""
        self._file.close()
        if self._scalars is not None:
            self._scalars.close()
            self._scalars = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()


class _Scalars:
    """TensorBoard events by step, and by examples seen in a folder of their own.

    The two have folders of their own because a resume hides what was written from its first step on (a session
    start, in TensorBoard's terms), and that cut goes by one axis for all the tags of a folder.
    """

    def __init__(self, folder: Path, first: EpochRecord):
        self._by_step = _open_events(folder, first.step)
        self._by_examples = _open_events(folder / "by_examples", first.examples_seen)

    def add(self, record: EpochRecord) -> None:
        for tag, name in _TAGS.items():
            value = getattr(record, name)
            if value is not None and math.isfinite(value):
                _add_scalar(self._by_step, tag, value, record.step)
                _add_scalar(self._by_examples, f"by_examples/{tag}", value, record.examples_seen)
        # Without a flush a killed run would leave its last epochs out of TensorBoard for good.
        self._by_step.flush()
        self._by_examples.flush()

    def close(self) -> None:
        self._by_step.close()
        self._by_examples.close()


def _open_events(folder: Path, first_step: int) -> EventsWriter:
    folder.mkdir(parents=True, exist_ok=True)
    # Event files are named by the second: a number keeps a quick resume from overwriting the file before it.
    number = sum(1 for _ in folder.glob("events.out.tfevents.*"))
    events = EventsWriter(str(folder / "events"), f".{number:04d}")
    start = SessionLog(status=SessionLog.START)
    events.write_event(Event(wall_time=time.time(), step=first_step, session_log=start))
    return events


def _add_scalar(events: EventsWriter, tag: str, value: float, step: int) -> None:
    events.write_event(Event(wall_time=time.time(), step=step, summary=scalar(tag, value)))


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
    *lines, _ = _read_bytes(path).split(b"\n")
    rows = [_parse(line) for line in lines]
    if rows and rows[-1] is None:
        rows.pop()
    if None in rows:
        raise InputError(f"{path}, line {rows.index(None) + 1}: it is damaged, there is no record on it")
    return [row for row in rows if row is not None]


@dataclass(frozen=True)
class Run:
    """What a run's folder tells, finished or not, with at least one finished epoch."""

    name: str
    """The folder's name, with as much of its path as tells it from the other runs."""
    config: Row
    """The document `config.json`."""
    records: Records
    summary: Row | None
    """The document `summary.json`; None where the run is unfinished."""

    @property
    def stages(self) -> Sequence[Row]:
        """The planned stages."""
        return self.config["stages"]


def read_runs(workdirs: Iterable[Path]) -> tuple[Run, ...]:
    """The runs in these folders, in order, each folder once.

    Raises:
      InputError: for a folder that is no run or has no finished epoch.
    """
    folders = tuple(dict.fromkeys(Path(workdir).resolve() for workdir in workdirs))
    names = _distinct_names(folders)
    return tuple(_read_run(folder, name) for folder, name in zip(folders, names, strict=True))


def _read_run(workdir: Path, name: str) -> Run:
    config = read_json(workdir / "config.json")
    if not isinstance(config, dict) or not {"experiment", "stages"} <= config.keys():
        raise InputError(f"{workdir / 'config.json'} is no run's: it has no experiment and stages")
    records = read(workdir)
    if not records.epochs:
        raise InputError(f"{workdir} has no finished epoch yet: there is nothing to show")
    summary = read_json(workdir / "summary.json") if (workdir / "summary.json").exists() else None
    damaged = _damaged(config, records, summary)
    if damaged:
        raise InputError(f"{workdir / damaged} is damaged: it is JSON, but not what a run writes there")
    return Run(name, config, records, summary)


_PLANNED = ("fraction", "examples", "batch_size", "learning_rate", "epochs", "updates", "samples", "noise_scale")
_RECORDED = ("stage", "epoch", "step", "examples_seen", "learning_rate", "batch_size", "noise_scale")
_REACHED = ("top1", "top5", "best_top1", "samples", "updates")


def _damaged(config: Row, records: Records, summary: Any) -> str | None:
    """The name of the file that lacks what every run writes, or has something else in its place."""
    stages = config["stages"]
    whole = isinstance(stages, list) and stages and isinstance(config["experiment"], dict)
    if not whole or not all(_has_numbers(stage, _PLANNED) and "name" in stage for stage in stages):
        return "config.json"
    if not all(_has_numbers(row, _RECORDED) and 1 <= row["stage"] <= len(stages) for row in records.epochs):
        return FILE
    if summary is not None and not (_has_numbers(summary, _REACHED) and {"seconds", "stages"} <= summary.keys()):
        return "summary.json"
    return None


def _has_numbers(row: Any, names: Iterable[str]) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), int | float) for name in names)


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many parts as tell all of them apart."""
    longest = max((len(folder.parts) for folder in folders), default=1)
    for parts in range(1, longest + 1):
        names = [str(Path(*folder.parts[-parts:])) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def comparable(epoch: Row) -> Row:
    """An epoch's row without its seconds: what two runs of one experiment have in common, bit for bit."""
    return {name: value for name, value in epoch.items() if name != "seconds"}


def without_seconds(epochs: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of `Records.epochs` in their comparable form."""
    return tuple(comparable(epoch) for epoch in epochs)


def percent(fraction: float | None) -> str:
    """An accuracy as people read it: fractions in files, per cent on screen, a dash where none was measured."""
    return "–" if fraction is None else f"{100 * fraction:.2f} %"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def write_json(path: Path, document: Any) -> None:
    """Writes sorted, indented JSON in one step: a reader sees the old file or the new one, also after a power cut.

    Numbers that are not finite become null, which JSON has no other word for.
    """
    text = json.dumps(_finite(document), allow_nan=False, ensure_ascii=False, indent=2, sort_keys=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
      InputError: where the file is missing or no JSON.
    """
    text = _read_bytes(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is damaged: it is no JSON ({error})") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"there is no {path.name} in {path.parent}: it is no run") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _finite(value: Any) -> Any:
    """The same document with null for numbers that are infinite or NaN."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
