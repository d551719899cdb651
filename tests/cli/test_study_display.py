"""The displays of a study."""

import errno
import io
import os
from pathlib import Path

import pytest

from stepwise_jax.cli.study_display import LiveStudyDisplay, StudyDisplay, make_study_display
from stepwise_jax.studies.jobs import Failure, Job


def job(folder: Path, samples: int = 100) -> Job:
    return Job(folder.name, folder, (), samples)


def finish(one: Job) -> None:
    one.folder.mkdir(parents=True)
    (one.folder / "summary.json").write_text("{}")


def test_plain_lines_report_starts_ends_and_progress(tmp_path):
    jobs, stream = [job(tmp_path / name) for name in "abc"], io.StringIO()
    finish(jobs[0])
    display = make_study_display(jobs, stream)
    assert type(display) is StudyDisplay
    display.started(jobs[1])
    display.progressed([jobs[1]], 1, 100)
    display.progressed([jobs[1]], 1, 150)
    display.progressed([jobs[1]], 1, 151)
    display.ended(jobs[1], None)
    display.ended(jobs[2], Failure(jobs[2], 3, "the loss is not finite"))
    display.finish()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "3 runs, 1 finished; 200 samples to feed"
    assert lines[1] == f"b: started (log: {tmp_path / 'b.log'})"
    # Nothing while the pace is unknown; then a line for each twentieth.
    assert lines[2].startswith("1 of 3 runs, 50% of the samples, 0:00:")
    assert lines[3:] == ["b: done", "c: FAILED: the loss is not finite"]


def test_a_started_run_is_resumed(tmp_path):
    one, stream = job(tmp_path / "a"), io.StringIO()
    one.folder.mkdir()
    (one.folder / "records.jsonl").write_text('{"kind": "epoch", "examples_seen": 7}\n')
    (one.folder / "checkpoints" / "7").mkdir(parents=True)
    display = make_study_display([one], stream)
    display.started(one)
    assert stream.getvalue().splitlines()[0] == "1 run, 0 finished; 93 samples to feed"
    assert "a: resuming" in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_live_list(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    jobs, stream = [job(tmp_path / "run [0]"), job(tmp_path / "b")], Terminal()
    display = make_study_display(jobs, stream)
    assert isinstance(display, LiveStudyDisplay)
    try:
        display.started(jobs[0])
        display.progressed(jobs[:1], 0, 50)
        display.ended(jobs[0], None)
    finally:
        display.finish()
    written = stream.getvalue()
    assert "run [0]: started" in written
    assert "run [0]: done" in written
    assert "0 of 2 runs, 25% of the samples" in written


@pytest.mark.parametrize("kind", [StudyDisplay, LiveStudyDisplay])
@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_a_stream_that_fails_does_not_stop_the_study(number, kind, tmp_path):
    class Failing(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(number, os.strerror(number))

    display = kind([job(tmp_path / "a")], Failing())
    display.started(job(tmp_path / "a"))
    display.finish()


def test_nothing_is_left_of_a_finished_study(tmp_path):
    one, stream = job(tmp_path / "a"), io.StringIO()
    finish(one)
    display = StudyDisplay([one], stream)
    assert stream.getvalue() == "1 run, 1 finished; 0 samples to feed\n"
    assert display._format_progress() == "1 of 1 runs, 100% of the samples, 0:00:00 to the end"


def test_no_runs_at_all(tmp_path):
    stream = io.StringIO()
    display = StudyDisplay([], stream)
    display.progressed([], 0, 0)
    assert stream.getvalue() == "0 runs, 0 finished; 0 samples to feed\n"
