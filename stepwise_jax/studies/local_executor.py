"""Many runs, each a process of its own: started where there is room, watched, and continued after anything.

A run that fails, or is killed, takes no other with it; what is finished stays finished, because each run's folder tells
how far it is. Several processes may work on one grid: each passes over the runs that another has in hand.
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
from stepwise_jax.runtime.signals import StopRequest
from stepwise_jax.studies.jobs import Failure, Job, Slot, StudyObserver, last_lines
from stepwise_jax.workdir import lock

POLL_SECONDS = 1.0


@dataclass
class _Running:
    cell: Job
    slot: Slot
    process: "subprocess.Popen[bytes]"


def make_slots(processes: int) -> tuple[Slot, ...]:
    """Places for `processes` runs at a time: GPUs in turn where there are any, else equal shares of the cores.

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
    """Shares a GPU's memory among processes, unless the user has shared it out already."""
    name = "XLA_PYTHON_CLIENT_MEM_FRACTION"
    return {} if processes == 1 or name in os.environ else {name: f"{0.9 / processes:.2f}"}


def default_processes() -> int:
    """One run a GPU; on a CPU one a core, as long as there are four GiB of memory for each, and eight at most.

    One in all on a TPU, whose chips one process holds together.
    """
    if _on_tpu():
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return len(_gpus()) or max(1, min(len(_cores()) or os.cpu_count() or 1, memory // 2**32, 8))


def _on_tpu() -> bool:
    platform = os.environ.get("JAX_PLATFORMS", "").split(",")[0]
    return platform == "tpu" or (not platform and Path("/dev/accel0").exists())


def _cores() -> list[int]:
    """The cores that this process may use; none where a system does not bind processes to cores."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _gpus() -> list[str]:
    """The GPUs that a run may use, by their numbers, without starting JAX in this process."""
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number for number in visible.split(",") if number and number != "-1"]
    return [str(number) for number in range(64) if Path(f"/dev/nvidia{number}").exists()]


def run_jobs(cells: Sequence[Job], slots: Sequence[Slot], watcher: StudyObserver, stop: StopRequest) -> list[Failure]:
    """Runs every cell that is not finished, as many at a time as there are slots; returns those that failed.

    Raises:
      InterruptedRunError: after a signal, when every run has saved its state and ended.
    """
    waiting = deque(cell for cell in cells if not cell.done)
    free, running, failures = list(slots), list[_Running](), list[Failure]()
    try:
        while waiting or running:
            if stop:
                raise InterruptedRunError(f"stopped by {stop.name}: run the same command to go on")
            _fill(waiting, free, running, watcher)
            failures += _collect(waiting, free, running, watcher)
            finished = sum(cell.done for cell in cells)
            watcher.moved([each.cell for each in running], finished, sum(cell.samples_done() for cell in cells))
            time.sleep(POLL_SECONDS if waiting or running else 0)
    finally:
        _end(running)
    return failures


def _collect(waiting: deque[Job], free: list[Slot], running: list[_Running], watcher: StudyObserver) -> list[Failure]:
    """Takes the runs whose process has ended out of `running`; returns those that failed."""
    failures = []
    for each in [each for each in running if each.process.poll() is not None]:
        running.remove(each)
        free.append(each.slot)
        failure = _failure(each)
        if failure and (each.cell.done or lock.in_use(each.cell.folder)):
            # Another process took the run up while ours was starting.
            waiting.append(each.cell)
            continue
        failures += [failure] if failure else []
        watcher.ended(each.cell, failure)
    return failures


def _fill(waiting: deque[Job], free: list[Slot], running: list[_Running], watcher: StudyObserver) -> None:
    """Starts waiting cells in free slots; one that another process has in hand goes to the end of the queue."""
    for _ in range(len(waiting)):
        if not free:
            return
        cell = waiting.popleft()
        if cell.done:
            continue
        if lock.in_use(cell.folder):
            waiting.append(cell)
            continue
        slot = free.pop(0)
        running.append(_Running(cell, slot, _start(cell, slot)))
        watcher.started(cell)


def _start(cell: Job, slot: Slot) -> "subprocess.Popen[bytes]":
    cell.folder.parent.mkdir(parents=True, exist_ok=True)
    with open(cell.log, "ab") as log:
        # A session of its own: Ctrl-C reaches the grid alone, which then asks each run to save and stop.
        process = subprocess.Popen(
            cell.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **slot.environment},
            start_new_session=True,
        )
    if slot.cores:
        # Before the interpreter has come to start any thread.
        os.sched_setaffinity(process.pid, slot.cores)
    return process


def _failure(ended: _Running) -> Failure | None:
    status = ended.process.returncode
    if status == 0:
        return None
    told = [line.removeprefix("error: ") for line in last_lines(ended.cell.log) if line.strip()]
    if status < 0:
        return Failure(ended.cell, status, f"its process was killed by {_signal_name(-status)}")
    return Failure(ended.cell, status, told[-1] if told else f"its process ended with status {status}")


def _signal_name(number: int) -> str:
    # Real-time signals have no name in Python.
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _end(running: Sequence[_Running]) -> None:
    """Asks every run to save and stop, and waits until it has."""
    for each in running:
        each.process.send_signal(signal.SIGTERM)
    for each in running:
        each.process.wait()
