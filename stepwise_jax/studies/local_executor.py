"""Runs the jobs of a study on this machine, each in a separate process, as many at a time as there are slots.

A run that fails or is killed does not affect the others; if this process is killed, the runs save and stop. A study can
be stopped and started again, because each run's folder says how far the run is. Several processes may work on one
study: each skips the runs that another is training.
"""

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.runtime.signals import PARENT, StopRequest
from stepwise_jax.studies.jobs import Failure, Job, Slot, StudyObserver, last_lines
from stepwise_jax.workdir import lock

POLL_SECONDS = 1.0


@dataclass
class _Running:
    job: Job
    slot: Slot
    process: "subprocess.Popen[bytes]"


def make_slots(processes: int) -> tuple[Slot, ...]:
    """Slots for `processes` runs at a time: GPUs in turn where there are any, else equal shares of the cores.

    Args:
      processes: at least 1.
    """
    gpus = _gpus()
    if gpus:
        numbers = [gpus[i % len(gpus)] for i in range(processes)]
        return tuple(
            Slot({**_memory_limit(numbers.count(number)), "CUDA_VISIBLE_DEVICES": number}) for number in numbers
        )
    cores = _cores()
    if not cores:
        return (Slot(),) * processes
    if processes >= len(cores):
        return tuple(Slot({}, frozenset({cores[i % len(cores)]})) for i in range(processes))
    return tuple(Slot({}, frozenset(cores[i::processes])) for i in range(processes))


def _memory_limit(processes: int) -> dict[str, str]:
    """Environment that divides a GPU's memory among processes, unless the user has already limited it."""
    name = "XLA_PYTHON_CLIENT_MEM_FRACTION"
    return {} if processes == 1 or name in os.environ else {name: f"{0.9 / processes:.2f}"}


def default_processes() -> int:
    """How many runs to train at a time.

    One for each GPU. On a CPU one for each core, as long as each has 4 GiB of memory, and at most 8. One on a TPU,
    because a single process holds all its chips.
    """
    if _on_tpu():
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return len(_gpus()) or max(1, min(len(_cores()) or os.cpu_count() or 1, memory // 2**32, 8))


def _on_tpu() -> bool:
    platform = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    return platform == "tpu" or (not platform and Path("/dev/accel0").exists())


def _cores() -> list[int]:
    """The cores that this process may use; none where the system cannot bind processes to cores."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _gpus() -> list[str]:
    """The numbers of the GPUs that a run may use, found without starting JAX in this process."""
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number for number in visible.split(",") if number and number != "-1"]
    return [str(number) for number in range(64) if Path(f"/dev/nvidia{number}").exists()]


def run_jobs(jobs: Sequence[Job], slots: Sequence[Slot], observer: StudyObserver, stop: StopRequest) -> list[Failure]:
    """Run every job that is not finished, as many at a time as there are slots.

    Returns:
      The runs that failed.

    Raises:
      InterruptedRunError: after a signal, once every run has saved its state and ended.
    """
    waiting = deque(job for job in jobs if not job.done)
    free, running, failures = list(slots), list[_Running](), list[Failure]()
    try:
        while waiting or running:
            if stop:
                raise InterruptedRunError(f"stopped by {stop.name}: run the same command to continue")
            _fill(waiting, free, running, observer)
            failures += _collect(waiting, free, running, observer)
            finished = sum(job.done for job in jobs)
            observer.progressed([each.job for each in running], finished, sum(job.samples_done() for job in jobs))
            time.sleep(POLL_SECONDS if waiting or running else 0)
    finally:
        _stop_all(running)
    return failures


def _collect(waiting: deque[Job], free: list[Slot], running: list[_Running], observer: StudyObserver) -> list[Failure]:
    """Remove the runs whose process has ended from `running`; return those that failed."""
    failures = []
    for each in [each for each in running if each.process.poll() is not None]:
        running.remove(each)
        free.append(each.slot)
        failure = _failure(each)
        if failure and (each.job.done or lock.is_locked(each.job.folder)):
            # Another process started this run while ours was starting.
            waiting.append(each.job)
            continue
        failures += [failure] if failure else []
        observer.ended(each.job, failure)
    return failures


def _fill(waiting: deque[Job], free: list[Slot], running: list[_Running], observer: StudyObserver) -> None:
    """Start waiting jobs in free slots; one that another process is training goes to the end of the queue."""
    for _ in range(len(waiting)):
        if not free:
            return
        job = waiting.popleft()
        if job.done:
            continue
        if lock.is_locked(job.folder):
            waiting.append(job)
            continue
        slot = free.pop(0)
        running.append(_Running(job, slot, _start(job, slot)))
        observer.started(job)


def _start(job: Job, slot: Slot) -> "subprocess.Popen[bytes]":
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "ab") as log:
        # In a new session: Ctrl-C reaches this process alone, which then makes each run save and stop.
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **slot.environment, PARENT: str(os.getpid())},
            start_new_session=True,
        )
    if slot.cores:
        # Before the interpreter starts any thread.
        os.sched_setaffinity(process.pid, slot.cores)
    return process


def _failure(ended: _Running) -> Failure | None:
    status = ended.process.returncode
    if status == 0:
        return None
    output = [line.removeprefix("error: ") for line in last_lines(ended.job.log) if line.strip()]
    if status < 0:
        return Failure(ended.job, status, f"its process was killed by {_signal_name(-status)}")
    return Failure(ended.job, status, output[-1] if output else f"its process ended with status {status}")


def _signal_name(number: int) -> str:
    # Real-time signals have no name in Python.
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _stop_all(running: Sequence[_Running]) -> None:
    """Make every run save and stop, and wait until it has."""
    for each in running:
        each.process.send_signal(signal.SIGTERM)
    for each in running:
        each.process.wait()
