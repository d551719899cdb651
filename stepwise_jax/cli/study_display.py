"""Displays the progress of many runs: as a live list on a terminal, as plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stepwise_jax.cli.display import can_move_cursor, estimate_seconds_left, format_time_left
from stepwise_jax.runtime.streams import tolerate_errors
from stepwise_jax.studies.jobs import Failure, Job, StudyObserver
from stepwise_jax.workdir.files import complete_steps

_EARLY_SECONDS = 600.0


class StudyDisplay(StudyObserver):
    """Shows a line for each run that starts or ends, and one for each twentieth of all samples."""

    def __init__(self, jobs: Sequence[Job], stream: TextIO):
        self._stream, self._jobs = tolerate_errors(stream), jobs
        self._total = sum(job.samples for job in jobs)
        self._start = (time.monotonic(), sum(job.samples_done() for job in jobs))
        self._samples, self._finished, self._twentieths = self._start[1], sum(job.done for job in jobs), -1
        count = "1 run" if len(jobs) == 1 else f"{len(jobs)} runs"
        self._show(f"{count}, {self._finished} finished; {self._total - self._start[1]:,} samples to feed")

    def started(self, job: Job) -> None:
        """See `StudyObserver`."""
        self._show(f"{job.name}: {'resuming' if complete_steps(job.folder) else 'started'} (log: {job.log})")

    def ended(self, job: Job, failure: Failure | None) -> None:
        """See `StudyObserver`."""
        self._show(f"{job.name}: done" if failure is None else f"{job.name}: FAILED: {failure.message}")

    def lost(self, job: Job, reason: str) -> None:
        """See `StudyObserver`."""
        self._show(f"{job.name}: starts again: {reason}")

    def progressed(self, running: Sequence[Job], finished: int, samples_done: int) -> None:
        """See `StudyObserver`."""
        self._samples, self._finished = samples_done, finished
        twentieths = 20 * samples_done // max(self._total, 1)
        if twentieths != self._twentieths and samples_done > self._start[1]:
            self._twentieths = twentieths
            self._show_progress()

    def finish(self) -> None:
        """Ends the display, also after an error."""

    def _show_progress(self) -> None:
        self._show(self._format_progress())

    def _format_progress(self) -> str:
        left = self._seconds_left(time.monotonic())
        share = f"{self._samples / max(self._total, 1):.0%} of the samples"
        return f"{self._finished} of {len(self._jobs)} runs, {share}, {format_time_left(left)}"

    def _seconds_left(self, now: float) -> float | None:
        """Seconds to the end; None while compiling takes most of the time, and the pace says nothing."""
        if self._finished == len(self._jobs):
            return 0.0
        started, before = self._start
        early = self._samples - before < (self._total - before) / 50 and now - started < _EARLY_SECONDS
        return None if early else estimate_seconds_left(self._start, (now, self._samples), self._total)

    def _show(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class LiveStudyDisplay(StudyDisplay):
    """Shows a progress bar for each current run and one for the whole study, below the lines."""

    def __init__(self, jobs: Sequence[Job], stream: TextIO):
        self._running: Sequence[Job] = ()
        self._console = Console(file=tolerate_errors(stream), highlight=False)
        super().__init__(jobs, stream)
        # Last, because it renders the attributes above at once.
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=2,
            redirect_stdout=sys.stdout.isatty(),
            transient=True,
        )
        self._live.start()

    def progressed(self, running: Sequence[Job], finished: int, samples_done: int) -> None:
        """See `StudyObserver`."""
        self._running = running
        super().progressed(running, finished, samples_done)

    def finish(self) -> None:
        """Removes the live part."""
        self._live.stop()

    def _show_progress(self) -> None:
        """Does nothing: the live part shows the progress."""

    def _show(self, text: str) -> None:
        self._console.print(Text(text))

    def _render(self) -> RenderableType:
        lines = Table.grid(expand=True, padding=(0, 1, 0, 0))
        # A name tells a run from the others, so that it is never cut: the bar takes what is left.
        lines.add_column(overflow="fold")
        lines.add_column(ratio=1, min_width=10)
        for job in self._running:
            lines.add_row(Text(job.name), ProgressBar(total=max(job.samples, 1), completed=job.samples_done()))
        # In table rows, because a bar alone does not end its line.
        whole = Table.grid(expand=True)
        whole.add_row(ProgressBar(total=max(self._total, 1), completed=self._samples))
        whole.add_row(Text(self._format_progress()))
        return Group(lines, whole)


def make_study_display(jobs: Sequence[Job], stream: TextIO | None = None) -> StudyDisplay:
    """A live display if `stream` (stderr by default) is a terminal that can move its cursor, else plain lines."""
    target: TextIO = sys.stderr if stream is None else stream
    return (LiveStudyDisplay if can_move_cursor(target) else StudyDisplay)(jobs, target)
