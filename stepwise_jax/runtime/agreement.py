"""All processes of a run agree at the same step whether to stop and whether to save."""

import signal
from collections import deque

import jax
import numpy as np
from jax.sharding import Mesh

from stepwise_jax.runtime.multihost import is_first_process
from stepwise_jax.runtime.sharding import replicated, split_along
from stepwise_jax.runtime.signals import StopRequest


class StopAgreement:
    """An agreement of all processes at the same step to stop or to save: a signal may reach only one of them.

    After each training call, `exchange` sends the flags of this process and reads the flags sent `LAG` calls before, so
    that no process waits. A single process needs no agreement: its own flags count.
    """

    LAG = 2
    """Calls between sending flags and reading them: as many as are in flight on the devices."""

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
        """The signal for which the run stops, no matter which process received it."""
        if self._alone:
            return self._request.name
        return signal.Signals(self._signal).name if self._signal else None

    def exchange(self, due: bool) -> None:
        """Send whether a signal has arrived and whether the first process has a checkpoint due; read earlier flags."""
        if self._alone:
            return
        self._due = False
        self._sent.append(self._send(due))
        if len(self._sent) > self.LAG:
            self._read(self._sent.popleft())

    def synchronize(self) -> None:
        """Exchange signals and wait for the result, at a point where the processes wait for each other anyway."""
        if not self._alone:
            due = self._due
            self._read(self._send(due=False))
            self._due = due

    def save_is_due(self, due: bool) -> bool:
        """Return whether a checkpoint is due on all processes; `due` says so for this one."""
        return due if self._alone else self._due

    def _send(self, due: bool) -> jax.Array:
        name = self._request.name
        flags = np.array([[signal.Signals[name] if name else 0, due and is_first_process()]], np.int32)
        local = np.repeat(flags, len(self._mesh.local_devices), axis=0)
        sharding, shape = split_along(self._mesh, 0), (self._mesh.size, 2)
        return self._largest(jax.make_array_from_process_local_data(sharding, local, shape))

    def _read(self, largest: jax.Array) -> None:
        number, due = np.asarray(largest).tolist()
        self._signal, self._due = max(self._signal, number), bool(due)
        if due:
            # The flags sent since then do not take the checkpoint into account that is written now.
            self._sent.clear()
