"""Slurm's own commands: what it would say to a job, the states of jobs, and the end of jobs."""

import getpass
import shutil
import subprocess
from collections.abc import Iterable, Sequence

from stepwise_jax.errors import InputError, require
from stepwise_jax.studies.jobs import Needs

FINAL_STATES = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}
"""Of a job that Slurm does not start again."""


def check_slurm(needs: Needs, partition: str | None) -> None:
    """Check that Slurm would take a job.

    Raises:
      InputError: where there is no Slurm, it does not answer, or it refuses such a job.
    """
    if not shutil.which("sbatch"):
        raise InputError("--executor slurm: this machine has no Slurm: the command sbatch is not found")
    status, output = _call("sinfo", "-h", "-o", "%R")
    if status:
        raise InputError(f"--executor slurm: Slurm does not answer: {output}")
    known = sorted(set(output.split()))
    require(partition is None or partition in known, "--executor.partition", partition, f"one of {', '.join(known)}")
    words = [f"--time={needs.minutes}", f"--cpus-per-task={needs.cpus}"]
    words += [f"--gpus-per-node={needs.gpus}"] if needs.gpus else []
    words += [f"--partition={partition}"] if partition else []
    status, output = _call("sbatch", "--test-only", *words, "--wrap=true")
    if status:
        raise InputError(f"--executor slurm: Slurm refuses such jobs ({' '.join(words)}): {output}")


def query_states() -> dict[str, str] | None:
    """The states of this user's jobs by their number, ARRAY_INDEX in an array; None where Slurm does not answer now.

    Slurm remembers a job that has ended for some minutes.
    """
    status, output = _call("squeue", "-h", "-r", "-t", "all", "-u", getpass.getuser(), "-o", "%i %T")
    return None if status else dict(line.split(maxsplit=1) for line in output.splitlines())


def cancel(ids: Iterable[str]) -> None:
    """End jobs: those that run get SIGTERM, and SIGKILL after Slurm's `KillWait`."""
    _call("scancel", *ids)


def _call(*command: str) -> tuple[int, str]:
    """The exit status of a command, and its output; of one that fails the last line."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout if done.returncode == 0 else _last_line(done.stderr)


def _last_line(text: str) -> str:
    lines: Sequence[str] = [line for line in text.splitlines() if line.strip()]
    return lines[-1].partition("error: ")[2] or lines[-1] if lines else "it does not say why"
