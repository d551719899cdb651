"""The mirror of a study: its own documents, and below them the mirror of each run, at the run's path in the folder.

Each run copies itself, as with `train --mirror`. Copied here are the files of the folder itself, before and after any
runs are trained, so that a machine that has nothing finds what was decided before the runs that it finds.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.studies.jobs import Job
from stepwise_jax.workdir import lock
from stepwise_jax.workdir.mirror import Mirror, copy_finished, open_store, restore, restore_below, stamp

Execute = Callable[[Sequence[Job]], list[Any]]
"""Trains jobs and returns those that failed."""


@contextmanager
def recorded_study(url: str | None, document: str) -> Iterator[Path | None]:
    """A temporary folder with the document of the study in a mirror; None where nothing is there yet.

    Args:
      url: of the mirror; None where there is none.
      document: the name of the file that describes such a study.

    Raises:
      InputError: if the place cannot be read, or holds something else; and those of the block, which name the mirror in
        place of the temporary folder.
    """
    with tempfile.TemporaryDirectory() as name:
        found = url is not None and _fetch(url, document, Path(name))
        try:
            yield Path(name) if found else None
        except InputError as error:
            raise InputError(str(error).replace(name, f"--mirror {url}")) from error


def _fetch(url: str, document: str, folder: Path) -> bool:
    store = open_store(url.rstrip("/"))
    try:
        manifest = store.read_manifest()
        if not manifest or not manifest["files"]:
            return False
        if document in manifest["files"]:
            store.download(document, folder)
            return True
    except Exception as error:
        raise InputError(f"--mirror {url} cannot be read: {describe_error(error)}") from error
    raise InputError(f"--mirror {url} holds something else, without {document}: name a new place")


class StudyMirror:
    """Keeps the copy of a study's folder in another place; without a URL it does nothing."""

    def __init__(self, folder: Path, url: str | None):
        """Claim the place for this process.

        Raises:
          InputError: if nothing can be written there.
        """
        self._folder, self._store = folder, open_store(url.rstrip("/")) if url else None
        self._documents = Mirror(folder, self._store, _documents) if self._store else None

    def restore(self, progress: ProgressCallback) -> None:
        """Download what the folder lacks: its documents if it is missing or empty, and every run of which it has none.

        Raises:
          InputError: if the mirror cannot be read, or is damaged.
        """
        if self._store:
            restore(self._folder, self._store, progress)
            restore_below(self._folder, self._store, progress)

    def copy(self) -> None:
        """Copy the documents that have changed; a failure is a warning."""
        if self._documents and self._folder.is_dir():
            self._documents.finish()

    def mirrored(self, execute: Execute) -> Execute:
        """A function that executes jobs which copy their runs, and copies the documents before and after them."""

        def execute_mirrored(jobs: Sequence[Job]) -> list[Any]:
            self.copy()
            failures = execute([self._with_mirror(job) for job in jobs])
            for job in jobs:
                self._complete(job)
            self.copy()
            return failures

        return execute_mirrored if self._store else execute

    def _with_mirror(self, job: Job) -> Job:
        assert self._store is not None
        place = self._store.below(job.folder.relative_to(self._folder).as_posix())
        return dataclasses.replace(job, command=(*job.command, "--mirror", place.url))

    def _complete(self, job: Job) -> None:
        """Copy a run that finished without a mirror, or whose process was killed before its last copy."""
        assert self._store is not None
        if job.done and not lock.is_locked(job.folder):
            copy_finished(job.folder, self._store.below(job.folder.relative_to(self._folder).as_posix()))


def _documents(folder: Path) -> dict[str, tuple[int, int]]:
    """The files of the folder itself, and those of its report."""
    return stamp(folder, [*sorted(folder.glob("[!.]*")), *sorted((folder / "report").rglob("*"))])
