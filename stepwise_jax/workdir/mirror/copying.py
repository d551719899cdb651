"""Copies a run's folder to a store after each checkpoint, in a thread of its own, or a folder's files when asked."""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.workdir.files import CHECKPOINTS, LOCK, OWNER, SUMMARY, complete_steps
from stepwise_jax.workdir.mirror.store import Store
from stepwise_jax.workdir.records import EndRecord, Record

_log = logging.getLogger(__name__)

Stamps = dict[str, tuple[int, int]]
"""Size, and time of the last change in ns, of files by their paths below a folder."""

_ATTEMPTS, _PAUSE_SECONDS = 3, 2.0
"""Of the last copy, which no later one completes."""


class Mirror:
    """An observer that copies the folder whenever it has another complete checkpoint, and at the end of the run.

    Training does not wait for a copy, but for the last one. A copy that fails is made up for by the next one; if the
    last one fails, a warning says so. The manifest is written after the files that it lists, and files that it no
    longer lists are removed after that, so that the store has a run to resume from at any time.
    """

    def __init__(self, folder: Path, store: Store, files: Callable[[Path], Stamps] | None = None):
        """Claim the store for this process.

        Args:
          folder: of the run.
          store: for the copies.
          files: the files of a folder that are copied; by default those of a run.

        Raises:
          InputError: if nothing can be written there.
        """
        self._folder, self._store, self._files = folder, store, files or _run_files
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._copied: Stamps = {}
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
            self.finish()
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

    def finish(self) -> None:
        """Copy what has changed, and wait for it; a copy that fails is tried again, and becomes a warning."""
        if self._thread is not None:
            self._thread.join()
        for attempt in range(_ATTEMPTS):
            if self._lost or not self._folder.is_dir() or self._try_to_copy():
                return
            time.sleep(_PAUSE_SECONDS * (attempt + 1))
        _log.warning(f"--mirror {self._store.url} lacks the last changes: run the same command to copy them")

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
        steps, stamps = complete_steps(self._folder), self._files(self._folder)
        for name, stamp in stamps.items():
            if self._copied.get(name) != stamp:
                self._store.upload(self._folder, name)
        sizes = {name: size for name, (size, _) in stamps.items()}
        self._store.write_manifest({"owner": self._owner, "files": sizes})
        for name in before["files"].keys() - stamps.keys():
            self._store.remove(name)
        self._copied, self._steps = stamps, steps


def _run_files(folder: Path) -> Stamps:
    """The files that belong to the run, checkpoints last."""
    steps = complete_steps(folder)

    def belongs(path: Path) -> bool:
        top, *below = path.relative_to(folder).parts
        partial = top == CHECKPOINTS and (not below or below[0] not in steps)
        return top not in (LOCK, OWNER) and not partial

    paths = sorted(folder.rglob("*"), key=lambda path: (path.is_relative_to(folder / CHECKPOINTS), path))
    return stamp(folder, filter(belongs, paths))


def stamp(folder: Path, paths: Iterable[Path]) -> Stamps:
    """The size and the time of those paths below a folder that are files."""
    statuses = {path.relative_to(folder).as_posix(): path.stat() for path in paths if path.is_file()}
    return {name: (status.st_size, status.st_mtime_ns) for name, status in statuses.items()}


def copy_finished(folder: Path, store: Store) -> None:
    """Copy a finished run whose mirror is missing or not complete; a failure is a warning."""
    try:
        manifest = store.read_manifest()
        if manifest is None or SUMMARY not in manifest["files"]:
            Mirror(folder, store).finish()
    except Exception as error:
        _log.warning(f"--mirror {store.url} lacks a finished run: {describe_error(error)}")
