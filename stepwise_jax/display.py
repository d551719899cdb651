"""What a person sees while a run goes on, and its tables: a live display on a terminal, plain lines elsewhere.

The loop calls a `Display` with plain data and never asks it anything back.
"""

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stepwise_jax.formatting import duration, percent
from stepwise_jax.workdir.records import EpochRecord

Row = Mapping[str, Any]

_PIPE_WIDTH = 120


@dataclass
class Progress:
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


def seconds_left(progress: Progress, now: float) -> float | None:
    """Seconds to the end of the run at the pace since this process's first step, evaluation included.

    Args:
      progress: where the run stands.
      now: seconds on the clock that `progress.clock` was read from.

    Returns:
      None as long as there is no pace to judge by.
    """
    if progress.clock is None or progress.done <= progress.clock[1]:
        return None
    began, done_before = progress.clock
    return (progress.total - progress.done) * (now - began) / (progress.done - done_before)


def epoch_line(record: EpochRecord, stage: Row) -> str:
    """One line for a finished epoch of a planned stage, its images/s over training and waiting for input."""
    epochs, seconds = stage["epochs"], record.seconds
    parts = [
        f"{record.stage_name}  epoch {record.epoch:>{len(str(epochs))}}/{epochs}",
        f"loss {_loss(record.train_loss)}",
    ]
    if record.top1 is not None:
        parts += [f"top-1 {percent(record.top1)}", f"top-5 {percent(record.top5)}"]
    fed, spent = stage["examples"] // record.batch_size * record.batch_size, seconds["train"] + seconds["input_wait"]
    pace = f"{fed / max(spent, 1e-9):,.0f} images/s"
    return "  ".join([*parts, pace, f"{sum(seconds.values()):.1f} s"])


def _loss(value: float) -> str:
    """Three decimals, and no more digits than a line has room for where training diverges."""
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"


class Display:
    """Keeps up with a run and shows nothing: the silent display, and what the others share."""

    def __init__(self):
        self._progress = Progress()
        self._stages: Sequence[Row] = ()

    def start(self, title: str, stages: Sequence[Row], total_samples: int) -> None:
        """The run begins, or goes on: its planned stages, and the examples that the whole run feeds."""
        self._progress, self._stages = Progress(stages=len(stages), total=total_samples), stages
        self._show(title, "bold")

    def preparing(self, done: int, total: int, what: str) -> None:
        """`done` of `total` things are ready; also before `start`."""

    def stage(self, index: int, stage_name: str, text: str) -> None:
        """Stage `index`, from 1, begins; `text` says in words what it is."""
        progress = self._progress
        progress.stage, progress.stage_name, progress.epoch, progress.epochs = index, stage_name, 0, 0
        self._show(f"stage {index} of {progress.stages} · {stage_name}: {text}", "bold")

    def steps(
        self, epoch: int, epochs: int, examples_done_in_run: int, images_per_second: float, loss: float | None
    ) -> None:
        """Some steps are done. Called after each of them, so it only takes notes."""
        progress = self._progress
        progress.epoch, progress.epochs, progress.done = epoch, epochs, examples_done_in_run
        progress.loss = loss
        # The first steps of an epoch may still be under way: they have no pace yet.
        progress.images_per_second = images_per_second or progress.images_per_second
        if progress.clock is None:
            progress.clock = (time.monotonic(), examples_done_in_run)

    def epoch(self, record: EpochRecord) -> None:
        """An epoch is done."""
        progress = self._progress
        progress.done = record.examples_seen
        progress.top1 = progress.top1 if record.top1 is None else record.top1
        self._show(self._epoch_line(record), "")

    def message(self, text: str) -> None:
        """Something worth a line."""
        self._show(text, "yellow")

    def finish(self) -> None:
        """The run ends, in whatever way; a second call does nothing."""

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
        left = seconds_left(self._progress, time.monotonic())
        return super()._epoch_line(record) + ("" if left is None else f"  {duration(left)} to the end")

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

    def start(self, title: str, stages: Sequence[Row], total_samples: int) -> None:
        """Puts the live part up; it stays until `finish`."""
        self._ready = None
        self._live.start()
        super().start(title, stages, total_samples)

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
            return render(self._progress, time.monotonic())
        done, total, what = self._ready
        return Group(Text(f"{what}: {done:,} of {total:,}"), _bar(done, total, f"{done / total:.0%}"))


def make_display(stream: TextIO | None = None) -> Display:
    """A live display where `stream` (by default stderr) is a terminal that can move its cursor, else plain lines."""
    target: TextIO = sys.stderr if stream is None else stream
    return LiveDisplay(target) if can_move_cursor(target) else LineDisplay(target)


def can_move_cursor(stream: TextIO) -> bool:
    """Whether a stream is a terminal that a live display can be drawn on."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def render(progress: Progress, now: float) -> RenderableType:
    """The live part of the display: where the run stands, and a bar over the whole run weighted by samples."""
    if progress.stage == 0:
        return Text()
    left = seconds_left(progress, now)
    share = f"{progress.done / max(progress.total, 1):.0%}"
    ending = f"{share}  {'-:--:--' if left is None else duration(left)} to the end"
    return Group(Text(" · ".join(_status(progress))), _bar(progress.done, progress.total, ending))


def _status(progress: Progress) -> list[str]:
    parts = [f"stage {progress.stage} of {progress.stages}", progress.stage_name]
    if progress.epochs == 0:
        return [*parts, "starting"]
    parts += [f"epoch {progress.epoch} of {progress.epochs}", f"{progress.images_per_second:,.0f} images/s"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    return [*parts, f"top-1 {percent(progress.top1)}"]


def _bar(done: int, total: int, ending: str) -> RenderableType:
    line = Table.grid(expand=True, padding=(0, 1, 0, 0))
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(ProgressBar(total=max(total, 1), completed=done), Text(ending))
    return line


_COLUMNS = {
    "name": ("set", str),
    "fraction": ("data", lambda value: f"{100 * value:.4g} %"),
    "examples": ("examples", "{:,}".format),
    "batch_size": ("batch", str),
    "learning_rate": ("rate", "{:.3g}".format),
    "milestones": ("drops\nafter", lambda value: ", ".join(map(str, value)) or "–"),
    "epochs": ("epochs", str),
    "updates": ("updates", "{:,}".format),
    "samples": ("samples", "{:,}".format),
    "noise_scale": ("noise\nscale", "{:.3g}".format),
    "noise_scale_exact": ("exact\n(Eq. 5)", "{:.3g}".format),
    "top1": ("top-1", percent),
    "top5": ("top-5", percent),
}
# What stays in the table beside scores, and where there is no room for all.
_NARROWER = (
    ("name", "examples", "batch_size", "learning_rate", "epochs", "updates", "samples", "noise_scale", "top1", "top5"),
    ("name", "examples", "batch_size", "learning_rate", "epochs", "top1", "top5"),
)


def stages_table(rows: Sequence[Row], columns: Sequence[str] | None = None, title: str | None = None) -> Table:
    """A table of planned stages.

    Args:
      rows: one for each stage, with the fields of `plan --json`, and `top1` and `top5` (fractions) once reached.
      columns: the fields to show; by default all that a row has.
      title: a line above the table.
    """
    above = None if title is None else Text(title)
    table = Table(title=above, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    shown = [name for name in columns or _COLUMNS if any(name in row for row in rows)]
    for name in shown:
        justify = "left" if name == "name" else "right"
        table.add_column(_COLUMNS[name][0], justify=justify, vertical="bottom", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_COLUMNS[name][1](row[name]) if name in row else "–") for name in shown))
    return table


def print_stages(rows: Sequence[Row], title: str | None = None, stream: TextIO | None = None) -> None:
    """Prints the table of stages, by default on stdout, with as many of its columns as fit."""
    console = _console(stream)
    choices = _NARROWER if any("top1" in row for row in rows) else (None, *_NARROWER)
    tables = [stages_table(rows, columns, title) for columns in choices]
    table = next((table for table in tables if _width(table, console) <= console.width), tables[-1])
    if _width(table, console) + len(table.columns) <= console.width:
        table.padding = (0, 1, 0, 0)
    console.print(table)


def _width(table: Table, console: Console) -> int:
    return console.measure(table, options=console.options.update(max_width=_PIPE_WIDTH)).maximum


def print_plan(document: Row, examples: int, stream: TextIO | None = None) -> None:
    """Prints a plan, by default on stdout: its stages, and what it costs beside the baseline.

    Args:
      document: what `plan --json` prints.
      examples: M, the size of the training set.
      stream: where to print.
    """
    print_stages(document["stages"], f"The plan for {examples:,} training examples (M)", stream)
    console = _console(stream)
    console.print()
    for name, plan in (("this plan", document), ("baseline", document["baseline"])):
        cost = f"{plan['samples']:,} samples ({plan['samples'] / examples:.4g} M) in {plan['updates']:,} updates"
        console.print(Text(f"{name:<10} {cost}"))
    shares = [f"{100 * document[name]:.1f} %" for name in ("relative_samples", "relative_updates")]
    console.print(Text(f"{'relative':<10} {shares[0]} of the samples, {shares[1]} of the updates"))


def print_result(stages: Sequence[Row], summary: Row, stream: TextIO | None = None) -> None:
    """Prints what a finished run reached: its stages with their scores, then the final ones, by default on stdout.

    Args:
      stages: the planned stages, as in `config.json`.
      summary: the document `summary.json`; its stages stand in the same order.
      stream: where to print.
    """
    scores = [{name: stage.get(name) for name in ("top1", "top5")} for stage in summary["stages"]]
    print_stages([{**stage, **score} for stage, score in zip(stages, scores, strict=True)], stream=stream)
    console = _console(stream)
    best = f"(best epoch {percent(summary['best_top1'])})"
    console.print(Text(f"top-1 {percent(summary['top1'])} {best}, top-5 {percent(summary['top5'])}", style="bold"))
    spent = duration(sum(summary["seconds"].values()))
    console.print(Text(f"{summary['samples']:,} samples in {summary['updates']:,} updates, {spent}"))


def _console(stream: TextIO | None) -> Console:
    target: TextIO = sys.stdout if stream is None else stream
    # A pipe has no width: what reads it later should not get tables folded to 80 columns.
    return Console(file=target, highlight=False, width=None if target.isatty() else _PIPE_WIDTH)


def print_throughput(measured: Row, side: int, image_size: int, stream: TextIO | None = None) -> None:
    """Prints how fast images reach the device, by default on stdout.

    Args:
      measured: what `throughput.measure_data` returns.
      side: height and width of the JPEGs, in pixels.
      image_size: height and width that they are scaled to.
      stream: where to print.
    """
    title = f"JPEG {side} x {side} ({measured['jpeg_bytes'] / 1024:.0f} KiB) to {image_size} x {image_size}, "
    table = Table(
        title=title + f"{measured['cores']} cores",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("way")
    for name in ("images/s", "per core", "of whole", "of reduced"):
        table.add_column(name, justify="right")
    for row in measured["rows"]:
        speeds = (f"{row[name]:,.0f}" for name in ("images_per_second", "per_core"))
        shares = (f"{100 * row[name]:.0f} %" for name in ("of_bare", "of_bare_reduced"))
        table.add_row(row["way"], *speeds, *shares)
    console = _console(stream)
    console.print(table)
    peaks = ", ".join(f"{peak / 2**30:.2f}" for peak in measured["peak_bytes"])
    console.print(Text(f"peak memory of the process after each epoch of streaming: {peaks} GiB"))
