"""What a job of Slurm does on its node."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from stepwise_jax.errors import InterruptedRunError, StepwiseError
from stepwise_jax.runtime.signals import PARENT
from stepwise_jax.workdir.files import complete_steps

MAX_STARTS = 3
"""How often a job is started in a row without saving another checkpoint before its time limit."""


def run_command(command: Sequence[str], log: Path, folder: Path, workdir: Path, minutes: int) -> int:
    """Run a command; put its job back into the queue if a signal stopped the run, and it can resume.

    Slurm sends the signal to the command as well, because it sends it to all processes of the job. A job that was
    started `MAX_STARTS` times in a row without another checkpoint fails, with a line in the log that says so.

    Args:
      command: to run.
      log: the file that collects its output.
      folder: in which the command runs.
      workdir: of the run.
      minutes: the time limit of the job.

    Returns:
      The exit status, negative for a signal.
    """
    before = complete_steps(workdir)
    status = _call(command, log, folder)
    if status != InterruptedRunError.status:
        return status
    job_id = _job_id(os.environ)
    if not _is_completing(job_id):
        starts = _count_starts(starts_file(workdir), progressed=bool(complete_steps(workdir) - before))
        if starts >= MAX_STARTS:
            with open(log, "a") as output:
                output.write(f"error: {_describe_idle_job(job_id, minutes)}\n")
            return StepwiseError.status
        if subprocess.call(["scontrol", "requeue", job_id]):
            return status
    # Without a result: the job has not ended.
    os._exit(status)


def _call(command: Sequence[str], log: Path, folder: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        return subprocess.call(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, PARENT: str(os.getpid())},
        )


def starts_file(workdir: Path) -> Path:
    """The file that counts how often the job of a run was started in a row without another checkpoint."""
    return workdir.with_name(workdir.name + ".starts")


def _count_starts(path: Path, progressed: bool) -> int:
    """The starts in a row without another checkpoint, the last one included; kept in a file between them."""
    if progressed:
        path.unlink(missing_ok=True)
        return 0
    before = path.read_text() if path.exists() else ""
    starts = 1 + int(before if before.isdecimal() else 0)
    path.write_text(str(starts))
    return starts


def _describe_idle_job(job_id: str, minutes: int) -> str:
    return (
        f"Slurm job {job_id} met its time limit of {minutes} min {MAX_STARTS} times in a row without saving another "
        "checkpoint: raise --executor.time"
    )


def _job_id(environment: Mapping[str, str]) -> str:
    # The number of an array's last task is that of the whole array, all of which would go back into the queue.
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment["SLURM_JOB_ID"]


def _is_completing(job_id: str) -> bool:
    """Whether Slurm has cancelled or preempted this job, and has decided what becomes of it."""
    done = subprocess.run(["squeue", "-h", "-j", job_id, "-o", "%T"], capture_output=True, text=True)
    return done.stdout.strip() == "COMPLETING"
