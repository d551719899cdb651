"""The Slurm script, with stand-ins for Slurm's commands that write down how they are called."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def submit(folder: Path, status: int, *words: str) -> tuple[int, list[str]]:
    """The script's exit status where `srun` has the given one, and the commands that it called."""
    for name, ends in {"srun": status, "scontrol": 0}.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $@" >> "{folder}/called"\nexit {ends}\n')
        (folder / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "123"}
    done = subprocess.run(
        ["bash", "examples/slurm.sh", *words], cwd=ROOT, env=environment, capture_output=True, timeout=60
    )
    called = folder / "called"
    return done.returncode, called.read_text().splitlines() if called.exists() else []


@pytest.mark.parametrize(("status", "requeued"), [(0, []), (75, ["scontrol requeue 123"]), (2, []), (134, [])])
def test_a_job_is_requeued_where_its_run_can_resume(tmp_path, status, requeued):
    train = "launch.py train configs/digits.py --workdir runs/a run --distributed"
    started = [f"srun --kill-on-bad-exit=1 .venv/bin/python {train}"]
    assert submit(tmp_path, status, "configs/digits.py", "runs/a run") == (status, started + requeued)


def test_a_job_without_a_folder_starts_nothing(tmp_path):
    status, called = submit(tmp_path, 0, "configs/digits.py")
    assert status != 0
    assert called == []
