"""Whether to stop and whether to save, agreed on by all processes of a run at the same step."""

import signal
from collections import deque

import jax
import numpy as np
from jax.sharding import Mesh

from stepwise_jax.runtime.multihost import is_first_process
from stepwise_jax.runtime.sharding import replicated, split_along
from stepwise_jax.runtime.signals import StopRequest


class StopAgreement:
    """Whether to stop and whether to save, known to all processes at the same step: a signal may come to one alone.

    Each call of the training program is followed by one to `exchange`, which sends what this process knows after it and
    reads what was sent `LAG` calls before, so that nobody waits. One process needs no agreement: its word counts.
    """

    LAG = 2
    """Calls between a question and its answer: as many as are under way on the devices at a time."""

    def __init__(self, request: StopRequest, mesh: Mesh):
        self._request, self._mesh = request, mesh
        self._alone = jax.process_count() == 1
        self._signal, self._due = 0, False
        self._sent: deque[jax.Array] = deque()
        self._largest = jax.jit(lambda flags: flags.max(axis=0), out_shardings=replicated(mesh))

    def __bool__(self) -> bool:
        return self.name is not None

    @property
    def name(self) -> str | None:
        """The signal for which the run stops, on whichever process it came."""
        if self._alone:
            return self._request.name
        return signal.Signals(self._signal).name if self._signal else None

    def exchange(self, due: bool) -> None:
        """Tells the others of a signal, and the first process whether a checkpoint is due; takes an answer in."""
        if self._alone:
            return
        self._due = False
        self._sent.append(self._send(due))
        if len(self._sent) > self.LAG:
            self._take(self._sent.popleft())

    def synchronize(self) -> None:
        """Asks for signals and waits for the answer: where the processes wait for each other anyway."""
        if not self._alone:
            due = self._due
            self._take(self._send(due=False))
            self._due = due

    def due(self, due: bool) -> bool:
        """Whether a checkpoint is due for all, where it is for this process."""
        return due if self._alone else self._due

    def _send(self, due: bool) -> jax.Array:
        name = self._request.name
        ours = np.array([[signal.Signals[name] if name else 0, due and is_first_process()]], np.int32)
        held = np.repeat(ours, len(self._mesh.local_devices), axis=0)
        sharding, shape = split_along(self._mesh, 0), (self._mesh.size, 2)
        return self._largest(jax.make_array_from_process_local_data(sharding, held, shape))

    def _take(self, answer: jax.Array) -> None:
        number, due = np.asarray(answer).tolist()
        self._signal, self._due = max(self._signal, number), bool(due)
        if due:
            # What was sent since then does not know yet of the checkpoint that is written now.
            self._sent.clear()
