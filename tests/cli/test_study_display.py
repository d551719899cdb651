"""What is shown while many runs go on."""

import io
from pathlib import Path

import pytest

from stepwise_jax.cli.study_display import LiveStudyDisplay, StudyDisplay, make_study_display, seconds_left
from stepwise_jax.studies.jobs import Failure, Job


def cell(folder: Path, samples: int = 100) -> Job:
    return Job(folder.name, folder, (), samples)


def finish(one: Job) -> None:
    one.folder.mkdir(parents=True)
    (one.folder / "summary.json").write_text("{}")


def test_the_time_left_is_at_the_pace_since_the_beginning():
    assert seconds_left((0.0, 0), (10.0, 100), 400) == pytest.approx(30)
    # What an earlier process did says nothing of this one's pace.
    assert seconds_left((100.0, 300), (110.0, 350), 400) == pytest.approx(10)
    assert seconds_left((0.0, 50), (10.0, 50), 400) is None
    assert seconds_left((0.0, 0), (10.0, 400), 400) == 0


def test_plain_lines_tell_of_starts_ends_and_progress(tmp_path):
    grid, stream = [cell(tmp_path / name) for name in "abc"], io.StringIO()
    finish(grid[0])
    display = make_study_display(grid, stream)
    assert type(display) is StudyDisplay
    display.started(grid[1])
    display.moved([grid[1]], 1, 100)
    display.moved([grid[1]], 1, 150)
    display.moved([grid[1]], 1, 151)
    display.ended(grid[1], None)
    display.ended(grid[2], Failure(grid[2], 3, "the loss is not finite"))
    display.finish()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "3 runs, 1 finished; 300 samples in all"
    assert lines[1] == f"b: started (log: {tmp_path / 'b.log'})"
    # Nothing before there is a pace, and a line for each twentieth.
    assert lines[2].startswith("1 of 3 runs, 50% of the samples, 0:00:")
    assert lines[3:] == ["b: done", "c: FAILED: the loss is not finite"]


def test_a_run_that_was_begun_goes_on(tmp_path):
    one, stream = cell(tmp_path / "a"), io.StringIO()
    one.folder.mkdir()
    (one.folder / "records.jsonl").write_text('{"kind": "epoch", "examples_seen": 7}\n')
    display = make_study_display([one], stream)
    display.started(one)
    assert stream.getvalue().splitlines()[0] == "1 run, 0 finished; 100 samples in all"
    assert "a: going on" in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_live_list(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    grid, stream = [cell(tmp_path / "run [0]"), cell(tmp_path / "b")], Terminal()
    display = make_study_display(grid, stream)
    assert isinstance(display, LiveStudyDisplay)
    try:
        display.started(grid[0])
        display.moved(grid[:1], 0, 50)
        display.ended(grid[0], None)
    finally:
        display.finish()
    told = stream.getvalue()
    assert "run [0]: started" in told
    assert "run [0]: done" in told
    assert "0 of 2 runs, 25% of the samples" in told


def test_an_output_that_nobody_reads_stops_no_grid(tmp_path):
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    StudyDisplay([cell(tmp_path / "a")], Gone()).started(cell(tmp_path / "a"))


def test_no_runs_at_all(tmp_path):
    stream = io.StringIO()
    display = StudyDisplay([], stream)
    display.moved([], 0, 0)
    assert stream.getvalue() == "0 runs, 0 finished; 0 samples in all\n"
