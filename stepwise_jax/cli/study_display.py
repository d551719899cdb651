"""What a person sees while many runs go on: a live list of those under way on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stepwise_jax.cli.display import can_move_cursor
from stepwise_jax.formatting import format_duration
from stepwise_jax.studies.jobs import Failure, Job, StudyObserver


class StudyDisplay(StudyObserver):
    """Counts what a grid has done since this process began, and shows a line for each run that starts or ends."""

    def __init__(self, cells: Sequence[Job], stream: TextIO):
        self._stream, self._cells = stream, cells
        self._total = sum(cell.samples for cell in cells)
        self._began = (time.monotonic(), sum(cell.samples_done() for cell in cells))
        self._samples, self._finished, self._twentieths = self._began[1], sum(cell.done for cell in cells), -1
        counted = "1 run" if len(cells) == 1 else f"{len(cells)} runs"
        self._show(f"{counted}, {self._finished} finished; {self._total:,} samples in all")

    def started(self, cell: Job) -> None:
        """See `StudyObserver`."""
        self._show(f"{cell.name}: {'going on' if cell.samples_done() else 'started'} (log: {cell.log})")

    def ended(self, cell: Job, failure: Failure | None) -> None:
        """See `StudyObserver`."""
        self._show(f"{cell.name}: done" if failure is None else f"{cell.name}: FAILED: {failure.message}")

    def moved(self, running: Sequence[Job], finished: int, samples_done: int) -> None:
        """See `StudyObserver`."""
        self._samples, self._finished = samples_done, finished
        twentieths = 20 * samples_done // max(self._total, 1)
        if twentieths != self._twentieths and samples_done > self._began[1]:
            self._twentieths = twentieths
            self._progress()

    def finish(self) -> None:
        """The grid ends, in whatever way."""

    def _progress(self) -> None:
        self._show(self._status())

    def _status(self) -> str:
        left = seconds_left(self._began, (time.monotonic(), self._samples), self._total)
        share = f"{self._samples / max(self._total, 1):.0%} of the samples"
        ending = "-:--:--" if left is None else format_duration(left)
        return f"{self._finished} of {len(self._cells)} runs, {share}, {ending} to the end"

    def _show(self, text: str) -> None:
        # A grid outlives the reader of its lines.
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(text + "\n")
            self._stream.flush()


class LiveStudyDisplay(StudyDisplay):
    """Below the lines stand the runs under way, and a bar over the whole grid."""

    def __init__(self, cells: Sequence[Job], stream: TextIO):
        self._running: Sequence[Job] = ()
        self._console = Console(file=stream, highlight=False)
        super().__init__(cells, stream)
        # Last, as it renders at once what the lines above make.
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=2,
            redirect_stdout=sys.stdout.isatty(),
            transient=True,
        )
        self._live.start()

    def moved(self, running: Sequence[Job], finished: int, samples_done: int) -> None:
        """See `StudyObserver`."""
        self._running = running
        super().moved(running, finished, samples_done)

    def finish(self) -> None:
        """Takes the live part down."""
        self._live.stop()

    def _progress(self) -> None:
        """The live part shows it all the time."""

    def _show(self, text: str) -> None:
        self._console.print(Text(text))

    def _render(self) -> RenderableType:
        lines = Table.grid(expand=True, padding=(0, 1, 0, 0))
        lines.add_column(ratio=1)
        lines.add_column(ratio=2)
        for cell in self._running:
            lines.add_row(Text(cell.name), ProgressBar(total=max(cell.samples, 1), completed=cell.samples_done()))
        # In rows, as a bar alone ends no line.
        whole = Table.grid(expand=True)
        whole.add_row(ProgressBar(total=max(self._total, 1), completed=self._samples))
        whole.add_row(Text(self._status()))
        return Group(lines, whole)


def seconds_left(began: tuple[float, int], now: tuple[float, int], total: int) -> float | None:
    """Seconds to the end at the pace since `began`, both (seconds, samples); None while there is no pace yet."""
    if now[1] <= began[1]:
        return None
    return (total - now[1]) * (now[0] - began[0]) / (now[1] - began[1])


def make_study_display(cells: Sequence[Job], stream: TextIO | None = None) -> StudyDisplay:
    """A live display where `stream` (by default stderr) is a terminal that can move its cursor, else plain lines."""
    target: TextIO = sys.stderr if stream is None else stream
    return (LiveStudyDisplay if can_move_cursor(target) else StudyDisplay)(cells, target)
