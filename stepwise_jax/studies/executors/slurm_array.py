"""Submits jobs to Slurm as one array, and remembers beside each run which job it is."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwise_jax.errors import StepwiseError, first_line
from stepwise_jax.studies.executors.slurm_job import run_command, starts_file
from stepwise_jax.studies.jobs import Job, Needs

MAX_JOBS = 1000
"""Slurm's usual limit on the size of an array."""

SAVE_SECONDS = 120
"""How long before its time limit a job gets the signal to save and stop; half of a limit below four minutes."""


def submit_array(
    submitit: Any, folder: Path, jobs: Sequence[Job], partition: str | None, at_a_time: int
) -> Sequence[str]:
    """Submit jobs with the same needs; returns their numbers, ARRAY_INDEX of more than one.

    Args:
      submitit: the module.
      folder: for its files.
      jobs: to submit.
      partition: of the jobs; None for Slurm's default.
      at_a_time: the limit on those that run at the same time.

    Raises:
      StepwiseError: if Slurm does not take them.
    """
    if not jobs:
        return ()
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(**make_parameters(jobs[0].needs, partition, at_a_time))
    for job in jobs:
        starts_file(job.folder).unlink(missing_ok=True)
    try:
        with executor.batch():
            submitted = [executor.submit(run_command, *_arguments(job)) for job in jobs]
    except (OSError, RuntimeError) as error:
        raise StepwiseError(f"Slurm does not take the jobs: {first_line(error)}") from error
    for job, theirs in zip(jobs, submitted, strict=True):
        _id_file(job).parent.mkdir(parents=True, exist_ok=True)
        _id_file(job).write_text(theirs.job_id)
    return [theirs.job_id for theirs in submitted]


def _arguments(job: Job) -> tuple[Any, ...]:
    """Those of `run_command`."""
    return job.command, job.log.absolute(), Path.cwd(), job.folder.absolute(), job.needs.minutes


def make_parameters(needs: Needs, partition: str | None, at_a_time: int) -> dict[str, Any]:
    """The parameters of a job array, as submitit names them.

    Args:
      needs: of each job, with its time limit.
      partition: None for Slurm's default.
      at_a_time: the limit on jobs of the array that run at the same time.
    """
    assert needs.minutes is not None
    # The job imports this package, which need not be installed.
    path = shlex.quote(str(Path(__file__).parents[3]))
    parameters = {
        "job_name": "stepwise",
        "time": needs.minutes,
        "cpus_per_task": needs.cpus,
        # From Slurm 22.05 on, `srun` does not take it from the job.
        "srun_args": [f"--cpus-per-task={needs.cpus}"],
        "array_parallelism": at_a_time,
        "setup": [f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}"],
        # SIGTERM in place of submitit's own signal: it reaches the run, which knows it.
        "additional_parameters": {"signal": f"TERM@{min(SAVE_SECONDS, 30 * needs.minutes)}", "requeue": True},
    }
    optional = {"partition": partition, "gpus_per_node": needs.gpus or None}
    return parameters | {name: value for name, value in optional.items() if value is not None}


def _id_file(job: Job) -> Path:
    return job.folder.with_name(job.folder.name + ".slurm")


def read_id(job: Job) -> str:
    """The number under which a job was last submitted; empty where it was not."""
    return _id_file(job).read_text() if _id_file(job).exists() else ""
