"""A process of one side of a comparison, and the jobs that it prepares, one after the other."""

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from worker import Worker, WorkerError

LARGEST_FREE = 128
"""The largest batch that any number of lanes may prepare at once: steps of larger ones need too much memory."""

LATE = "was not ready in time"

_TRIES_FOR_MEMORY, _PAUSE = 3, 5.0
_NO_ROOM = ("OutOfMemory", "RESOURCE_EXHAUSTED")

Job = tuple[int, str]
"""A batch size and a variant of the step."""


class Lane:
    """One process, its jobs, and their outcome."""

    def __init__(self, network: str, library: str, worker: Worker, jobs: Sequence[Job]):
        self.network, self.library, self.worker, self.jobs = network, library, worker, jobs
        self.ready: dict[Job, float] = {}
        """Seconds that each job took."""
        self.errors: dict[Job, str] = {}

    def prepare(self, deadline: float, last: float, room: threading.Semaphore) -> None:
        """Prepares the jobs that there is time for.

        Args:
          deadline: monotonic seconds; no job is started that would end later if it took as long as the last one.
          last: monotonic seconds at which a process that is still busy is ended, and its prepared jobs are lost.
          room: a semaphore that limits the large batches prepared at the same time.
        """
        for job in self.jobs:
            if time.monotonic() + self._expected() > deadline:
                self.errors[job] = LATE
            elif job[0] <= LARGEST_FREE:
                self._prepare(job, last)
            else:
                with room:
                    self._prepare(job, last)

    def _expected(self) -> float:
        """Seconds of the next job. The first also starts a compiler: on an H200 it took two to three times as long."""
        taken = list(self.ready.values())
        return 0.0 if not taken else taken[-1] / (2 if len(taken) == 1 else 1)

    def _prepare(self, job: Job, last: float) -> None:
        started = time.monotonic()
        for tries_left in reversed(range(_TRIES_FOR_MEMORY)):
            try:
                self.request(last - time.monotonic(), "prepare", *job)
                self.ready[job] = time.monotonic() - started
                self.errors.pop(job, None)
                log(f"{self.network} at batch {job[0]}: {self.library} {job[1]} ready, {self.ready[job]:.0f} s")
                return
            except WorkerError as error:
                self.errors[job] = str(error)
                # Another lane's step may have held the memory at that moment.
                if not tries_left or not any(each in str(error) for each in _NO_ROOM):
                    return
                time.sleep(_PAUSE)

    def request(self, seconds: float, *request: Any) -> Any:
        """Sends a request and returns its response.

        Raises:
          WorkerError: if it fails, has stopped, or takes longer than `seconds`, which ends the process.
        """
        self.worker.send(*request)
        return self.worker.receive(seconds)


def prepare_all(lanes: Sequence[Lane], deadline: float, last: float, large_at_once: int = 2) -> None:
    """Lets all lanes prepare at the same time, and waits for them."""
    room = threading.Semaphore(large_at_once)
    threads = [threading.Thread(target=lane.prepare, args=(deadline, last, room), daemon=True) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def log(message: str) -> None:
    """Shows progress on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)
