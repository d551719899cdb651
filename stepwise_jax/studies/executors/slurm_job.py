"""What a job of Slurm does on its node."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.runtime.signals import PARENT


def run_command(command: Sequence[str], log: Path, folder: Path) -> int:
    """Run a command; put its job back into the queue if a signal stopped the run, and it can resume.

    Slurm sends the signal to the command as well, because it sends it to all processes of the job.

    Args:
      command: to run.
      log: the file that collects its output.
      folder: in which the command runs.

    Returns:
      The exit status, negative for a signal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        status = subprocess.call(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, PARENT: str(os.getpid())},
        )
    if status == InterruptedRunError.status and _goes_back_into_queue(_job_id(os.environ)):
        # Without a result: the job has not ended.
        os._exit(status)
    return status


def _job_id(environment: Mapping[str, str]) -> str:
    # The number of an array's last task is that of the whole array, all of which would go back into the queue.
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment["SLURM_JOB_ID"]


def _goes_back_into_queue(job_id: str) -> bool:
    """Whether Slurm starts this job again or has cancelled it; a job that would go on otherwise is requeued here."""
    state = subprocess.run(["squeue", "-h", "-j", job_id, "-o", "%T"], capture_output=True, text=True).stdout.strip()
    # A job that is cancelled or preempted is completing: what becomes of it is decided.
    return state == "COMPLETING" or subprocess.call(["scontrol", "requeue", job_id]) == 0
