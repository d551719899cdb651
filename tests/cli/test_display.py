"""The displays of a run: live, through a pseudo-terminal, and as plain lines, through a pipe."""

import dataclasses
import errno
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from rich.console import Console

from stepwise_jax.cli import display, tables
from stepwise_jax.cli.display import LineDisplay, LiveDisplay, RunStatus, estimate_seconds_left, make_display
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.planning import make_plan, plan_to_dict
from stepwise_jax.plans.stage import stage_to_dict
from stepwise_jax.workdir.records import EpochRecord, StageRecord, StartRecord, StepsRecord

ROOT = Path(__file__).parents[2]
ROWS = [stage_to_dict(stage) for stage in make_plan(PlanConfig(), 1437)]
PLANS = (PlanConfig(), PlanConfig(strategy="baseline"))
SUMMARY = {
    "top1": 0.97222,
    "top5": 1.0,
    "best_top1": 0.975,
    "samples": 86220,
    "updates": 2060,
    "seconds": {"train": 100.0, "evaluate": 4.4},
    "stages": [{"name": row["name"], "metrics": {"top1": 0.9, "margin": 1.25}} for row in ROWS],
}
PLANNED = {item.name for item in dataclasses.fields(StageRecord)} - {"stage", "split", "sha256", "kind"}
RECORD = EpochRecord(
    stage=2,
    stage_name="B",
    epoch=7,
    step=297,
    examples_seen=5000,
    updates=297,
    learning_rate=2e-5,
    batch_size=48,
    noise_scale=2.4e-4,
    train_loss=0.41234,
    test_loss=0.5,
    top1=0.95278,
    top5=0.99722,
    metrics={"top1": 0.95278, "top5": 0.99722, "loss": 0.3},
    best_top1=0.96,
    seconds={"train": 1.0, "input_wait": 0.0, "compile": 0.0, "evaluate": 0.25, "checkpoint": 0.0},
)
STAGE = StageRecord(
    stage=2, split="train[:575]", sha256="", **{name: ROWS[1][name] for name in PLANNED if name in ROWS[1]}
)

PROGRAM = """
import sys, time
from stepwise_jax.cli.display import make_display
from stepwise_jax.workdir.records import EventRecord, EndRecord, PreparationRecord, StartRecord, StepsRecord
from tests.cli.test_display import RECORD, ROWS, STAGE
shown = make_display()
shown(PreparationRecord(30, 60, "preparing images"))
time.sleep(0.6)
shown(PreparationRecord(60, 60, "preparing images"))
shown(StartRecord("digits, five stages", ROWS, 10_000))
shown(STAGE)
for done in range(4000, 5001, 125):
    shown(StepsRecord(7, 20, done, 1234.4, 0.41234))
    time.sleep(0.15)
shown(RECORD)
time.sleep(0.6)
print("a stray line")
shown(EventRecord("fallback", "[red]checkpoint 12 is damaged[/red], continuing from 10"))
shown(EndRecord())
shown.finish()
print("done")
"""


def run_in_terminal(program: str, columns: int, **environment: str) -> str:
    """The output of a program on its terminal, control sequences included."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    ours = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=ROOT,
        env={**ours, "TERM": "xterm-256color", **environment},
    )
    os.close(follower)
    written = b"".join(iter(lambda: _read(leader), b""))
    os.close(leader)
    assert process.wait() == 0, written.decode()
    return written.decode()


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # On Linux, a terminal that no process holds any more raises an error instead of an empty read.
        return b""


def plain(written: str) -> str:
    """The words on the terminal, one space between them."""
    return " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).split())


@pytest.mark.parametrize("columns", [100, 32])
def test_a_terminal_shows_the_progress_of_the_run(columns):
    written = run_in_terminal(PROGRAM, columns)
    text = plain(written)
    assert "\x1b[2K" in written, "nothing was drawn in place"
    assert "preparing images: 30 of 60" in text
    assert "stage 2 of 5 · B · epoch 7 of 20 · 1,234 images/s · loss 0.4123 · top-1 95.28 %" in text
    assert re.search(r"50%\s+0:00:0\d\s+to\s+the\s+end", text)
    # Lines that stay when the live part is removed.
    assert "stage 2 of 5 · B: 575 examples, batch 48, learning rate 2e-05" in text
    assert "B epoch 7/20 loss 0.412 top-1 95.28 % top-5 99.72 % 528 images/s 1.2 s" in text
    assert "[red]checkpoint 12 is damaged[/red], continuing from 10" in text
    assert "a stray line" in text
    assert text.endswith("done")
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor is still hidden"


def test_a_pipe_gets_plain_lines():
    process = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout == "a stray line\ndone\n"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", process.stderr), "control characters"
    lines = process.stderr.splitlines()
    assert lines[:4] == [
        "preparing images: 30 of 60",
        "preparing images: 60 of 60",
        "digits, five stages",
        "stage 2 of 5 · B: 575 examples, batch 48, learning rate 2e-05",
    ]
    line = r"B  epoch  7/20  loss 0\.412  top-1 95\.28 %  top-5 99\.72 %  528 images/s  1\.2 s  0:00:0\d to the end"
    assert re.fullmatch(line, lines[4])
    assert lines[5:] == ["[red]checkpoint 12 is damaged[/red], continuing from 10"]


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines():
    written = run_in_terminal(PROGRAM, 100, TERM="dumb")
    assert "\x1b" not in written
    assert "top-1 95.28 %" in written


def test_nothing_of_the_display_gets_into_a_redirected_stdout(tmp_path):
    path = tmp_path / "stdout"
    program = f"import os; os.dup2(os.open({str(path)!r}, os.O_CREAT | os.O_WRONLY), 1)\n{PROGRAM}"
    assert "stage 2 of 5" in run_in_terminal(program, 100)
    assert path.read_text() == "a stray line\ndone\n"


def test_a_step_costs_microseconds():
    shown = LiveDisplay(io.StringIO())
    shown(StartRecord("", ROWS, 10**6))
    shown(STAGE)
    started = time.perf_counter()
    for step in range(10_000):
        shown(StepsRecord(1, 20, 24 * step, 1000.0, 0.5))
    spent = time.perf_counter() - started
    shown.finish()
    assert spent / 10_000 < 50e-6


def test_time_to_the_end_counts_from_this_process_first_step():
    assert RunStatus(total=1000).seconds_left(now=5.0) is None
    assert RunStatus(total=1000, done=600, first_step=(0.0, 600)).seconds_left(now=5.0) is None
    # Resumed at 600; 100 took 5 seconds, 300 are left.
    assert RunStatus(total=1000, done=700, first_step=(0.0, 600)).seconds_left(now=5.0) == pytest.approx(15.0)
    assert RunStatus(total=1000, done=1000, first_step=(0.0, 600)).seconds_left(now=5.0) == 0.0


def test_the_time_left_is_at_the_pace_since_the_start():
    assert estimate_seconds_left((0.0, 0), (10.0, 100), 400) == pytest.approx(30)
    # An earlier process does not count for the pace of this one.
    assert estimate_seconds_left((100.0, 300), (110.0, 350), 400) == pytest.approx(10)
    assert estimate_seconds_left((0.0, 50), (10.0, 50), 400) is None
    assert estimate_seconds_left((0.0, 0), (10.0, 400), 400) == 0


def test_an_epoch_without_a_score_keeps_the_last_one():
    stream = io.StringIO()
    shown = LineDisplay(stream)
    shown(StartRecord("", ROWS, 10_000))
    shown(STAGE)
    shown(RECORD)
    shown(StepsRecord(8, 20, 5100, 1000.0, None))
    shown(StepsRecord(8, 20, 5100, 0.0, None))
    shown(dataclasses.replace(RECORD, epoch=8, top1=None, top5=None, metrics={}))
    assert stream.getvalue().splitlines()[-1].startswith("B  epoch  8/20  loss 0.412  528 images/s  1.2 s")
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(display.render_status(shown._status, time.monotonic()))
    assert "stage 2 of 5 · B · epoch 8 of 20 · 1,000 images/s · top-1 95.28 %" in console.export_text()


def test_an_empty_live_display_can_be_finished():
    stream = io.StringIO()
    LiveDisplay(stream).finish()
    assert stream.getvalue() == ""


def test_the_table_of_stages_has_every_quantity_of_a_plan():
    stream = io.StringIO()
    tables.print_stages(ROWS, "The [plan]", stream)
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert lines[0] == ["The", "[plan]"]
    assert ["B", "40", "%", "575", "48", "2e-05", "10", "20", "220", "11,500", "0.00024", "0.00022"] in lines
    assert ["O", "100", "%", "1,437", "24", "0.001", "10", "20", "1,180", "28,740", "0.0599", "0.0589"] in lines


def test_a_plan_is_shown_with_its_cost_beside_the_baseline():
    planned, baseline = (make_plan(plan, 50_000) for plan in PLANS)
    stream = io.StringIO()
    tables.print_plan(plan_to_dict(planned, baseline), 50_000, stream)
    lines = stream.getvalue().splitlines()
    assert lines[0].strip() == "The plan for 50,000 training examples (M)"
    assert lines[-3:] == [
        "this plan  3,000,000 samples planned (60 M) in 74,940 updates",
        "baseline   5,000,000 samples planned (100 M) in 208,300 updates",
        "relative   60.0 % of the samples, 36.0 % of the updates",
    ]


def test_the_result_shows_the_scores_of_each_stage():
    stream = io.StringIO()
    tables.print_result(ROWS, SUMMARY, stream)
    text = stream.getvalue()
    assert re.search(r"top-1 +margin", text)
    assert re.search(r"^B .*90\.00 % +1\.25", text, re.MULTILINE)
    assert "top-1 97.22 % (best epoch 97.50 %), top-5 100.00 %" in text
    assert "86,220 samples planned, 81,120 fed in 2,060 updates, 0:01:44" in text
    stream = io.StringIO()
    tables.print_result(ROWS, {**SUMMARY, "test_images": 360}, stream)
    assert "top-1 97.22 % ± 1.70 on 360 images (best epoch 97.50 %), top-5 100.00 %" in stream.getvalue()


@pytest.mark.parametrize(("columns", "column"), [(120, "noise"), (80, "samples"), (60, "batch")])
def test_tables_fit_the_terminal(columns, column):
    program = "from tests.cli.test_display import *; tables.print_result(ROWS, SUMMARY)"
    written = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", run_in_terminal(program, columns))
    lines = written.splitlines()
    assert max(map(len, lines)) <= columns
    assert column in written
    assert "…" not in written
    assert sum(line.startswith(tuple("ABCDO")) for line in lines) == 5


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
def test_a_stream_that_fails_does_not_end_the_run(number, terminal, monkeypatch):
    """As in `launch.py train ... 2>&1 | head`, when a terminal is closed, or below a log on a full disk."""

    class Failing(io.StringIO):
        def isatty(self) -> bool:
            return terminal

        def write(self, _: str) -> int:
            raise OSError(number, os.strerror(number))

        def flush(self) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setenv("TERM", "xterm")
    shown = make_display(Failing())
    assert isinstance(shown, LiveDisplay if terminal else LineDisplay)
    shown.show_progress(1, 2, "reading images")
    shown(StartRecord("nobody reads this", ROWS, 10_000))
    shown.show_message("nor this")
    shown.finish()
