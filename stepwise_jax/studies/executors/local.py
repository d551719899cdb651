"""Runs jobs on this machine, each in a process of its own, as many at a time as there are slots.

If this process is killed, the runs save and stop.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from stepwise_jax.runtime.signals import PARENT
from stepwise_jax.studies.executors.executor import Ended
from stepwise_jax.studies.executors.slots import Slot
from stepwise_jax.studies.jobs import Job, describe_exit


@dataclass
class _Running:
    job: Job
    slot: Slot
    process: "subprocess.Popen[bytes]"


class LocalExecutor:
    """Runs jobs as processes of this machine; see `Executor`."""

    def __init__(self, slots: Sequence[Slot]):
        self._free, self._running = list(slots), list[_Running]()

    def room(self) -> int:
        """See `Executor`."""
        return len(self._free)

    def submit(self, jobs: Sequence[Job]) -> None:
        """See `Executor`."""
        for job in jobs:
            slot = self._free.pop(0)
            self._running.append(_Running(job, slot, _start(job, slot)))

    def running(self) -> Sequence[Job]:
        """See `Executor`."""
        return [each.job for each in self._running]

    def collect(self) -> Sequence[Ended]:
        """See `Executor`."""
        ended = [each for each in self._running if each.process.poll() is not None]
        for each in ended:
            self._running.remove(each)
            self._free.append(each.slot)
        return [Ended(each.job, describe_exit(each.job, each.process.returncode)) for each in ended]

    def stop(self) -> None:
        """See `Executor`."""
        for each in self._running:
            each.process.send_signal(signal.SIGTERM)
        for each in self._running:
            each.process.wait()


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
