"""A job of Slurm that meets its time limit goes back into the queue, unless it saves nothing time and again.

In place of Slurm stand two programs of the same names, which note what they are asked.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.studies.executors.small_comparison import ROOT

JOB = """
import sys
from pathlib import Path
from stepwise_jax.studies.executors.slurm_job import run_command

folder, code = Path(sys.argv[1]), sys.argv[2]
words = (sys.executable, "-S", "-c", code, str(folder / "run"))
print(run_command(words, folder / "run.log", folder, folder / "run", 4))
"""

STOPPED = "import sys; sys.exit(75)"
SAVED = "import pathlib, sys; p = pathlib.Path(sys.argv[1]) / 'checkpoints'; p.mkdir(parents=True, exist_ok=True); "
SAVED += "(p / str(len(list(p.iterdir())))).mkdir(); sys.exit(75)"
PARTIAL = (
    "import pathlib, sys; (pathlib.Path(sys.argv[1]) / 'checkpoints' / '1.tmp').mkdir(parents=True, exist_ok=True); "
)
PARTIAL += "sys.exit(75)"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Slurm's commands; the file `state` has the state of the job."""
    (tmp_path / "state").write_text("RUNNING")
    for name, script in {"squeue": f"cat {tmp_path}/state", "scontrol": f'echo "$@" >> {tmp_path}/asked'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    return tmp_path


def start(folder: Path, code: str) -> tuple[int, str]:
    """The exit status of the job, and what it returns: nothing where it goes back into the queue."""
    words = [sys.executable, "-c", JOB, str(folder), code]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200)
    assert not done.stderr
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize("code", [STOPPED, PARTIAL])
def test_a_job_that_saves_nothing_three_times_in_a_row_fails_with_one_sentence(slurm, code):
    assert [start(slurm, code) for _ in range(3)] == [(75, ""), (75, ""), (0, "1")]
    assert (slurm / "asked").read_text() == "requeue 12_0\n" * 2
    assert (slurm / "run.log").read_text() == (
        "error: Slurm job 12_0 met its time limit of 4 min 3 times in a row without saving another checkpoint: raise "
        "--executor.time\n"
    )


def test_a_job_that_saves_goes_back_into_the_queue_any_number_of_times(slurm):
    for code in (STOPPED, STOPPED, SAVED, STOPPED, STOPPED, SAVED):
        assert start(slurm, code) == (75, "")
    assert (slurm / "asked").read_text() == "requeue 12_0\n" * 6


def test_a_job_that_slurm_preempts_is_not_counted(slurm):
    (slurm / "state").write_text("COMPLETING")
    assert [start(slurm, STOPPED) for _ in range(4)] == [(75, "")] * 4
    assert not (slurm / "asked").exists()


def test_another_status_is_returned(slurm):
    assert start(slurm, "import sys; sys.exit(3)") == (0, "3")
