"""Observers that display a training run: live on a terminal, as plain lines elsewhere."""

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

from stepwise_jax.formatting import describe_scores, format_duration, format_percent
from stepwise_jax.runtime.streams import tolerate_errors
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

TECHNICAL_EVENTS = ("compile", "delivery", "switch")
"""Events that only a verbose display shows; `records.jsonl` has them all."""


@dataclass
class RunStatus:
    """Progress of a run."""

    stages: int = 0
    total: int = 0
    """Samples in the whole run."""
    stage: int = 0
    stage_name: str = ""
    epoch: int = 0
    epochs: int = 0
    done: int = 0
    """Samples so far."""
    images_per_second: float = 0.0
    loss: float | None = None
    top1: float | None = None
    first_step: tuple[float, int] | None = None
    """Time and `done` at this process's first step. What earlier processes did does not count for the pace."""

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the end of the run, evaluation included; None while the pace is unknown.

        Args:
          now: seconds on the clock of `first_step`.
        """
        return None if self.first_step is None else estimate_seconds_left(self.first_step, (now, self.done), self.total)


def estimate_seconds_left(start: tuple[float, int], now: tuple[float, int], total: int) -> float | None:
    """Seconds until `total` samples are done, at the pace since `start`.

    Args:
      start: seconds and samples at the start of the measurement.
      now: seconds and samples now.
      total: samples in all.

    Returns:
      None while there is no pace yet.
    """
    if now[1] <= start[1]:
        return None
    return (total - now[1]) * (now[0] - start[0]) / (now[1] - start[1])


def format_time_left(seconds: float | None) -> str:
    """Time to the end, with dashes while it is unknown."""
    return f"{'-:--:--' if seconds is None else format_duration(seconds)} to the end"


def format_epoch(record: EpochRecord, stage: Row) -> str:
    """One line for a finished epoch of a planned stage. Its images/s include waiting for input."""
    epochs, seconds = stage["epochs"], record.seconds
    parts = [
        f"{record.stage_name}  epoch {record.epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {_format_loss(record.train_loss)}",
    ]
    if record.metrics:
        parts.append(describe_scores(record.metrics).replace(", ", "  "))
    samples, spent = (
        stage["examples"] // record.batch_size * record.batch_size,
        seconds["train"] + seconds["input_wait"],
    )
    pace = f"{samples / max(spent, 1e-9):,.0f} images/s"
    return "  ".join([*parts, pace, f"{sum(seconds.values()):.1f} s"])


def _format_loss(value: float) -> str:
    """Three decimals, but three digits where training diverges, so that the line stays short."""
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"


def _format_preparation(done: int, total: int, what: str) -> str:
    """What is being done, and how far it is; `total` is 0 while nobody knows it."""
    unknown = f"{what}: {done:,} so far" if done else what
    return f"{what}: {done:,} of {total:,}" if total else unknown


class Display:
    """An observer that follows a run and shows nothing: a silent display, and the base of the others.

    As a context manager it restores the terminal at its end.

    Args:
      verbose: show `TECHNICAL_EVENTS`, too.
    """

    def __init__(self, verbose: bool = False):
        self._status, self._verbose = RunStatus(), verbose
        self._stages: Sequence[Row] = ()

    def __call__(self, record: Record) -> None:
        """Shows a record (`training.progress.Observer`)."""
        match record:
            case PreparationRecord():
                self.show_progress(record.done, record.total, record.what)
            case StartRecord():
                self.on_start(record)
            case StageRecord():
                self.on_stage(record)
            case StepsRecord():
                self.on_steps(record)
            case EpochRecord():
                self.on_epoch(record)
            case EventRecord() if self._verbose or record.name not in TECHNICAL_EVENTS:
                self.show_message(record.message)
            case EndRecord():
                self.finish()

    def show_progress(self, done: int, total: int, what: str) -> None:
        """Shows that `done` of `total` things are ready, 0 of an unknown number. May come before `on_start`."""

    def on_start(self, record: StartRecord) -> None:
        """Shows the title of a run that starts or continues."""
        self._status = RunStatus(stages=len(record.stages), total=record.samples)
        self._stages = record.stages
        self._show(record.title, "bold")

    def on_stage(self, record: StageRecord) -> None:
        """Shows the settings of a stage that starts."""
        status = self._status
        status.stage, status.stage_name, status.epoch, status.epochs = record.stage, record.name, 0, 0
        text = f"{record.examples} examples, batch {record.batch_size}, learning rate {record.learning_rate:g}"
        self._show(f"stage {record.stage} of {status.stages} · {record.name}: {text}", "bold")

    def on_steps(self, record: StepsRecord) -> None:
        """Updates the status. Called after each step, so it draws nothing."""
        status = self._status
        status.epoch, status.epochs, status.done = record.epoch, record.epochs, record.examples_seen
        status.loss = record.loss
        # The first steps of an epoch may still be running: they have no speed yet.
        status.images_per_second = record.images_per_second or status.images_per_second
        if status.first_step is None:
            status.first_step = (time.monotonic(), record.examples_seen)

    def on_epoch(self, record: EpochRecord) -> None:
        """Shows the scores of a finished epoch."""
        status = self._status
        status.done = record.examples_seen
        status.top1 = status.top1 if record.top1 is None else record.top1
        self._show(self._format_epoch(record), "")

    def show_message(self, text: str) -> None:
        """Shows a line about an event."""
        self._show(text, "yellow")

    def finish(self) -> None:
        """Ends the display, also after an error. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.finish()

    def _format_epoch(self, record: EpochRecord) -> str:
        return format_epoch(record, self._stages[record.stage - 1])

    def _show(self, text: str, style: str) -> None:
        """Shows a permanent line."""


class LineDisplay(Display):
    """One line for each stage, epoch and message, without control characters: for pipes, files and batch systems."""

    def __init__(self, stream: TextIO, verbose: bool = False):
        super().__init__(verbose)
        self._stream = tolerate_errors(stream)
        self._shown: tuple[str, int] | None = None

    def show_progress(self, done: int, total: int, what: str) -> None:
        """Shows a line for each tenth, or at ten times as many things where their number is unknown."""
        tenths = (what, 10 * done // total if total else len(str(done)))
        if tenths != self._shown:
            self._shown = tenths
            self._show(_format_preparation(done, total, what), "")

    def _format_epoch(self, record: EpochRecord) -> str:
        left = self._status.seconds_left(time.monotonic())
        return super()._format_epoch(record) + ("" if left is None else f"  {format_time_left(left)}")

    def _show(self, text: str, style: str) -> None:
        # One write keeps lines whole if several processes or threads share a log.
        self._stream.write(text + "\n")
        self._stream.flush()


class LiveDisplay(Display):
    """Finished stages and epochs scroll by; the status and a progress bar of the whole run stay below them."""

    def __init__(self, stream: TextIO, verbose: bool = False):
        super().__init__(verbose)
        self._preparation: tuple[int, int, str] | None = None
        # A redirected stdout holds documents for other programs, so the display must not write to it.
        self._live = Live(
            get_renderable=self._render,
            console=Console(file=tolerate_errors(stream), highlight=False),
            refresh_per_second=4,
            redirect_stdout=sys.stdout.isatty(),
            transient=True,
        )

    def on_start(self, record: StartRecord) -> None:
        """Starts the live part, which stays until `finish`."""
        self._preparation = None
        self._live.start()
        super().on_start(record)

    def show_progress(self, done: int, total: int, what: str) -> None:
        """Shows a bar, and a line at the end."""
        finished = 0 < total <= done
        self._preparation = None if finished else (done, total, what)
        self._live.start()
        if finished:
            self._show(f"{what}: {total:,}", "")

    def finish(self) -> None:
        """Removes the live part and restores the terminal."""
        self._live.stop()

    def _show(self, text: str, style: str) -> None:
        self._live.console.print(Text(text, style=style))
        self._live.refresh()

    def _render(self) -> RenderableType:
        if self._preparation is None:
            return render_status(self._status, time.monotonic())
        done, total, what = self._preparation
        bars = [_render_bar(done, total, f"{done / total:.0%}")] if total else []
        return Group(Text(_format_preparation(done, total, what)), *bars)


def make_display(stream: TextIO | None = None, verbose: bool = False) -> Display:
    """A live display if `stream` (stderr by default) is a terminal that can move its cursor, else plain lines."""
    target: TextIO = sys.stderr if stream is None else stream
    return LiveDisplay(target, verbose) if can_move_cursor(target) else LineDisplay(target, verbose)


def can_move_cursor(stream: TextIO) -> bool:
    """Whether a stream is a terminal on which a live display can be drawn."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def render_status(status: RunStatus, now: float) -> RenderableType:
    """The live part of the display: the status, and a progress bar that counts samples of the whole run."""
    if status.stage == 0:
        return Text()
    ending = f"{status.done / max(status.total, 1):.0%}  {format_time_left(status.seconds_left(now))}"
    return Group(Text(" · ".join(_status_parts(status))), _render_bar(status.done, status.total, ending))


def _status_parts(status: RunStatus) -> list[str]:
    parts = [f"stage {status.stage} of {status.stages}", status.stage_name]
    if status.epochs == 0:
        return [*parts, "compiling, then the first epoch"]
    parts += [f"epoch {status.epoch} of {status.epochs}", f"{status.images_per_second:,.0f} images/s"]
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    return [*parts, f"top-1 {format_percent(status.top1)}"]


def _render_bar(done: int, total: int, ending: str) -> RenderableType:
    line = Table.grid(expand=True, padding=(0, 1, 0, 0))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(ProgressBar(total=max(total, 1), completed=done), Text(ending))
    return line
