"""Displays of a running training: live on a terminal, plain lines elsewhere. They are observers of the run."""

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stepwise_jax.formatting import format_duration, format_percent
from stepwise_jax.workdir.records import (
    EndRecord,
    EpochRecord,
    EventRecord,
    PreparationRecord,
    Record,
    Row,
    StageRecord,
    StartRecord,
    StepsRecord,
)


@dataclass
class RunStatus:
    """Where a run stands."""

    stages: int = 0
    total: int = 0
    """Examples that the whole run feeds."""
    stage: int = 0
    stage_name: str = ""
    epoch: int = 0
    epochs: int = 0
    done: int = 0
    """Examples fed so far."""
    images_per_second: float = 0.0
    loss: float | None = None
    top1: float | None = None
    clock: tuple[float, int] | None = None
    """Time and `done` at this process's first step: a resumed run is not credited with what it did before."""


def seconds_left(status: RunStatus, now: float) -> float | None:
    """Seconds to the end of the run at the pace since this process's first step, evaluation included.

    Args:
      status: where the run stands.
      now: seconds on the clock that `status.clock` was read from.

    Returns:
      None as long as there is no pace to judge by.
    """
    if status.clock is None or status.done <= status.clock[1]:
        return None
    began, done_before = status.clock
    return (status.total - status.done) * (now - began) / (status.done - done_before)


def epoch_line(record: EpochRecord, stage: Row) -> str:
    """One line for a finished epoch of a planned stage, its images/s over training and waiting for input."""
    epochs, seconds = stage["epochs"], record.seconds
    parts = [
        f"{record.stage_name}  epoch {record.epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {_loss(record.train_loss)}",
    ]
    if record.top1 is not None:
        parts += [f"top-1 {format_percent(record.top1)}", f"top-5 {format_percent(record.top5)}"]
    fed, spent = stage["examples"] // record.batch_size * record.batch_size, seconds["train"] + seconds["input_wait"]
    pace = f"{fed / max(spent, 1e-9):,.0f} images/s"
    return "  ".join([*parts, pace, f"{sum(seconds.values()):.1f} s"])


def _loss(value: float) -> str:
    """Three decimals, and no more digits than a line has room for where training diverges."""
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"


class Display:
    """An observer that keeps up with a run and shows nothing: the silent display, and what the others share.

    A context that gives the terminal back at its end.
    """

    def __init__(self):
        self._status = RunStatus()
        self._stages: Sequence[Row] = ()

    def __call__(self, record: Record) -> None:
        """Shows a record (`training.progress.Observer`)."""
        match record:
            case PreparationRecord():
                self.preparing(record.done, record.total, record.what)
            case StartRecord():
                self.start(record)
            case StageRecord():
                self.stage(record)
            case StepsRecord():
                self.steps(record)
            case EpochRecord():
                self.epoch(record)
            case EventRecord():
                self.message(record.message)
            case EndRecord():
                self.finish()

    def preparing(self, done: int, total: int, what: str) -> None:
        """`done` of `total` things are ready; also before `start`."""

    def start(self, record: StartRecord) -> None:
        """The run begins, or continues."""
        self._status = RunStatus(stages=len(record.stages), total=record.samples)
        self._stages = record.stages
        self._show(record.title, "bold")

    def stage(self, record: StageRecord) -> None:
        """A stage begins."""
        status = self._status
        status.stage, status.stage_name, status.epoch, status.epochs = record.stage, record.name, 0, 0
        text = f"{record.examples} examples, batch {record.batch_size}, learning rate {record.learning_rate:g}"
        self._show(f"stage {record.stage} of {status.stages} · {record.name}: {text}", "bold")

    def steps(self, record: StepsRecord) -> None:
        """Some steps are done. Called after each of them, so it only takes notes."""
        status = self._status
        status.epoch, status.epochs, status.done = record.epoch, record.epochs, record.examples_seen
        status.loss = record.loss
        # The first steps of an epoch may still be under way: they have no speed yet.
        status.images_per_second = record.images_per_second or status.images_per_second
        if status.clock is None:
            status.clock = (time.monotonic(), record.examples_seen)

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is done."""
        status = self._status
        status.done = record.examples_seen
        status.top1 = status.top1 if record.top1 is None else record.top1
        self._show(self._epoch_line(record), "")

    def message(self, text: str) -> None:
        """Something worth a line."""
        self._show(text, "yellow")

    def finish(self) -> None:
        """The run ends, in whatever way; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.finish()

    def _epoch_line(self, record: EpochRecord) -> str:
        return epoch_line(record, self._stages[record.stage - 1])

    def _show(self, text: str, style: str) -> None:
        """Shows a line that stays."""


class LineDisplay(Display):
    """One line a stage, an epoch, a message; no control characters: for pipes, files and batch systems."""

    def __init__(self, stream: TextIO):
        super().__init__()
        self._stream = stream
        self._shown: tuple[str, int] | None = None

    def preparing(self, done: int, total: int, what: str) -> None:
        """A line for each tenth of the way."""
        tenths = (what, 10 * done // max(total, 1))
        if tenths != self._shown:
            self._shown = tenths
            self._show(f"{what}: {done:,} of {total:,}", "")

    def _epoch_line(self, record: EpochRecord) -> str:
        left = seconds_left(self._status, time.monotonic())
        return super()._epoch_line(record) + ("" if left is None else f"  {format_duration(left)} to the end")

    def _show(self, text: str, style: str) -> None:
        # One write: the lines of several processes or threads in one log stay whole. Training outlives its reader.
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(text + "\n")
            self._stream.flush()


class LiveDisplay(Display):
    """Finished stages and epochs scroll by; below them stand where the run is, and a bar over the whole of it."""

    def __init__(self, stream: TextIO):
        super().__init__()
        self._ready: tuple[int, int, str] | None = None
        # A redirected stdout is for documents that others read: nothing of the display may end up in it.
        self._live = Live(
            get_renderable=self._render,
            console=Console(file=stream, highlight=False),
            refresh_per_second=4,
            redirect_stdout=sys.stdout.isatty(),
            transient=True,
        )

    def start(self, record: StartRecord) -> None:
        """Puts the live part up; it stays until `finish`."""
        self._ready = None
        self._live.start()
        super().start(record)

    def preparing(self, done: int, total: int, what: str) -> None:
        """A bar while it lasts, a line when it is done."""
        self._ready = None if done >= total else (done, total, what)
        self._live.start()
        if done >= total:
            self._show(f"{what}: {total:,}", "")

    def finish(self) -> None:
        """Takes the live part down and gives the terminal back."""
        self._live.stop()

    def _show(self, text: str, style: str) -> None:
        self._live.console.print(Text(text, style=style))
        self._live.refresh()

    def _render(self) -> RenderableType:
        if self._ready is None:
            return render(self._status, time.monotonic())
        done, total, what = self._ready
        return Group(Text(f"{what}: {done:,} of {total:,}"), _bar(done, total, f"{done / total:.0%}"))


def make_display(stream: TextIO | None = None) -> Display:
    """A live display where `stream` (by default stderr) is a terminal that can move its cursor, else plain lines."""
    target: TextIO = sys.stderr if stream is None else stream
    return LiveDisplay(target) if can_move_cursor(target) else LineDisplay(target)


def can_move_cursor(stream: TextIO) -> bool:
    """Whether a stream is a terminal that a live display can be drawn on."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def render(status: RunStatus, now: float) -> RenderableType:
    """The live part of the display: where the run stands, and a bar over the whole run weighted by samples."""
    if status.stage == 0:
        return Text()
    left = seconds_left(status, now)
    share = f"{status.done / max(status.total, 1):.0%}"
    ending = f"{share}  {'-:--:--' if left is None else format_duration(left)} to the end"
    return Group(Text(" · ".join(_status_parts(status))), _bar(status.done, status.total, ending))


def _status_parts(status: RunStatus) -> list[str]:
    parts = [f"stage {status.stage} of {status.stages}", status.stage_name]
    if status.epochs == 0:
        return [*parts, "starting"]
    parts += [f"epoch {status.epoch} of {status.epochs}", f"{status.images_per_second:,.0f} images/s"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    return [*parts, f"top-1 {format_percent(status.top1)}"]


def _bar(done: int, total: int, ending: str) -> RenderableType:
    line = Table.grid(expand=True, padding=(0, 1, 0, 0))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(ProgressBar(total=max(total, 1), completed=done), Text(ending))
    return line
