"""The Slurm scripts: with stand-ins for Slurm's commands that write down how they are called, and on a real Slurm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.studies.executors.engines import slurm_node, wait_for
from tests.studies.executors.small_comparison import RUN_WORDS, epochs_of

ROOT = Path(__file__).parents[2]
JOB = {"SLURM_JOB_ID": "123", "SLURM_CPUS_PER_TASK": "8", "SLURM_ARRAY_JOB_ID": "120", "SLURM_ARRAY_TASK_ID": "3"}


def submit(folder: Path, status: int, *words: str, script: str = "slurm.sh") -> tuple[int, list[str]]:
    """The script's exit status where `srun` has the given one, and the commands that it called."""
    for name, ends in {"srun": status, "scontrol": 0}.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $@" >> "{folder}/called"\nexit {ends}\n')
        (folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | JOB
    done = subprocess.run(
        ["bash", f"examples/{script}", *words], cwd=ROOT, env=environment, capture_output=True, timeout=60
    )
    called = folder / "called"
    return done.returncode, called.read_text().splitlines() if called.exists() else []


@pytest.mark.parametrize(("status", "requeued"), [(0, []), (75, ["scontrol requeue 123"]), (2, []), (134, [])])
def test_a_job_is_requeued_where_its_run_can_resume(tmp_path, status, requeued):
    train = "launch.py train configs/digits.py --workdir runs/a run --distributed"
    started = [f"srun --kill-on-bad-exit=1 --cpus-per-task=8 .venv/bin/python {train}"]
    assert submit(tmp_path, status, "configs/digits.py", "runs/a run") == (status, started + requeued)


def test_a_task_of_an_array_is_requeued_alone(tmp_path):
    words = ["configs/digits.py", "runs/compared", "--seeds", "3"]
    compare = "launch.py compare configs/digits.py --workdir runs/compared --processes 1 --seeds 3"
    called = [f"srun --cpus-per-task=8 .venv/bin/python {compare}", "scontrol requeue 120_3"]
    assert submit(tmp_path, 75, *words, script="slurm_array.sh") == (75, called)


def test_a_job_without_a_folder_starts_nothing(tmp_path):
    status, called = submit(tmp_path, 0, "configs/digits.py")
    assert status != 0
    assert called == []


def test_two_tasks_train_together_stop_and_resume_under_slurm(tmp_path, monkeypatch, prepared_digits):
    """A signal to the steps, as Slurm sends it before the time limit, puts the job back into the queue."""
    # The script expects a clone and its environment in the folder from which it is submitted.
    (tmp_path / "launch.py").symlink_to(ROOT / "launch.py")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with slurm_node() as conf:
        monkeypatch.setenv("SLURM_CONF", str(conf))
        options = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--gpus-per-node=0", "--time=10"]
        words = [str(ROOT / "examples" / "slurm.sh"), str(ROOT / "configs" / "digits.py"), "run", *RUN_WORDS]
        job = output(tmp_path, "sbatch", "--parsable", "--output=job.log", *options, *words)
        wait_for(lambda: epochs_of(tmp_path / "run") >= 2 or "error" in log(tmp_path), "the run has not started")
        assert "error" not in log(tmp_path)
        output(tmp_path, "scancel", "--signal=TERM", job)
        wait_for(
            lambda: output(tmp_path, "squeue", "-h", "-t", "all", "-o", "%T") == "COMPLETED", "the job has not ended"
        )
        assert "Restarts=1" in output(tmp_path, "scontrol", "show", "job", job)
    assert "stopped by SIGTERM after" in log(tmp_path)
    assert (tmp_path / "run" / "summary.json").exists()


def log(folder: Path) -> str:
    path = folder / "job.log"
    return path.read_text() if path.exists() else ""


def output(folder: Path, *words: str) -> str:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
