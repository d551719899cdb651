"""Copies a run's folder to a store after each checkpoint, in a thread of its own."""

import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.workdir.files import CHECKPOINTS, LOCK, OWNER
from stepwise_jax.workdir.mirror.store import Store
from stepwise_jax.workdir.records import EndRecord, Record

_log = logging.getLogger(__name__)

_Stamp = tuple[int, int]
"""Size, and time of the last change in ns."""

_ATTEMPTS, _PAUSE_SECONDS = 3, 2.0
"""Of the last copy, which no later one completes."""


class Mirror:
    """An observer that copies the folder whenever it has another complete checkpoint, and at the end of the run.

    Training does not wait for a copy, but for the last one. A copy that fails is made up for by the next one; if the
    last one fails, a warning says so. The manifest is written after the files that it lists, and files that it no
    longer lists are removed after that, so that the store has a run to resume from at any time.
    """

    def __init__(self, folder: Path, store: Store):
        """Claim the store for this process.

        Raises:
          InputError: if nothing can be written there.
        """
        self._folder, self._store = folder, store
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._copied: dict[str, _Stamp] = {}
        self._steps: frozenset[str] = frozenset()
        self._thread: threading.Thread | None = None
        self._looked_at, self._lost = 0.0, False
        try:
            manifest = store.read_manifest() or {"files": {}}
            store.write_manifest(manifest | {"owner": self._owner})
        except Exception as error:
            raise InputError(f"--mirror {store.url} cannot be written: {describe_error(error)}") from error

    def __call__(self, record: Record) -> None:
        """Start a copy if there is a new checkpoint; at the end of the run, wait for the last copy."""
        if isinstance(record, EndRecord):
            self._finish()
        elif self._has_new_checkpoint():
            self._thread = threading.Thread(target=self._try_to_copy, name="mirror", daemon=True)
            self._thread.start()

    def _has_new_checkpoint(self) -> bool:
        """Whether there is one and no copy is under way; asked for every step, so it looks once a second at most."""
        now = time.monotonic()
        if self._lost or now - self._looked_at < 1 or (self._thread is not None and self._thread.is_alive()):
            return False
        self._looked_at = now
        return bool(complete_steps(self._folder) - self._steps)

    def _finish(self) -> None:
        if self._thread is not None:
            self._thread.join()
        for attempt in range(_ATTEMPTS):
            if self._lost or not self._folder.is_dir() or self._try_to_copy():
                return
            time.sleep(_PAUSE_SECONDS * (attempt + 1))
        _log.warning(f"--mirror {self._store.url} lacks the end of the run: run the same command to copy it")

    def _try_to_copy(self) -> bool:
        try:
            self._copy()
        except Exception as error:
            _log.warning(f"--mirror {self._store.url}: {describe_error(error)}; the next copy makes up for this one")
            return False
        return True

    def _copy(self) -> None:
        before = self._store.read_manifest() or {"files": {}}
        if before.get("owner", self._owner) != self._owner:
            self._lost = True
            _log.warning(f"--mirror {self._store.url} was taken over by {before['owner']}: no more is copied there")
            return
        steps, stamps = complete_steps(self._folder), _stamps(self._folder)
        for name, stamp in stamps.items():
            if self._copied.get(name) != stamp:
                self._store.upload(self._folder, name)
        sizes = {name: size for name, (size, _) in stamps.items()}
        self._store.write_manifest({"owner": self._owner, "files": sizes})
        for name in before["files"].keys() - stamps.keys():
            self._store.remove(name)
        self._copied, self._steps = stamps, steps


def complete_steps(folder: Path) -> frozenset[str]:
    """The names of the complete checkpoints: Orbax gives a checkpoint its number when it is complete."""
    try:
        return frozenset(name for name in os.listdir(folder / CHECKPOINTS) if name.isdecimal())
    except FileNotFoundError:
        return frozenset()


def _stamps(folder: Path) -> dict[str, _Stamp]:
    """The files that belong to the run, checkpoints last: size and time by path below the folder."""
    steps, found = complete_steps(folder), dict[str, _Stamp]()
    for path in sorted(folder.rglob("*"), key=lambda path: (path.is_relative_to(folder / CHECKPOINTS), path)):
        top, *below = path.relative_to(folder).parts
        partial = top == CHECKPOINTS and (not below or below[0] not in steps)
        if top in (LOCK, OWNER) or partial or not path.is_file():
            continue
        status = path.stat()
        found["/".join([top, *below])] = (status.st_size, status.st_mtime_ns)
    return found
