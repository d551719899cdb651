"""An observer that logs to a tracking library in the background, and the run's identity there."""

import concurrent.futures
import importlib.util
import os
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.formatting import parse_path
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.threads import BackgroundWorker
from stepwise_jax.workdir.files import LOGGING
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.loggers.scalars import epoch_scalars, summary_scalars
from stepwise_jax.workdir.records import EndRecord, EpochRecord, Record, StartRecord, SummaryRecord

PROJECT = "stepwise-jax"
"""The default project, or in MLflow the experiment."""

PATIENCE_SECONDS = 60.0
"""How long the end of a run waits for a library that is still sending."""


@dataclass(frozen=True)
class RunIdentity:
    """A run in a tracking library."""

    id: str
    """Stored in the workdir, so that a run that resumes continues the same one."""
    name: str
    """The workdir's name; in a study its path, as `stepwise/seed0`."""
    group: str | None
    """The name of the study's folder: of a comparison or a sweep."""
    folder: Path
    """The workdir."""


class Tracker(Protocol):
    """One run in a tracking library. A background thread makes every call."""

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log numbers by tag, after `step` updates; `examples_seen` is one of them."""
        ...

    def summarize(self, scalars: Mapping[str, float], step: int) -> None:
        """Log the numbers of a finished run, after its last update."""
        ...

    def finish(self, complete: bool) -> None:
        """Send what is left. A run that is not complete was stopped or failed, and may resume."""
        ...


Opener = Callable[[RunIdentity, Mapping[str, Any]], Tracker]
"""Opens a run, or continues it, given the fields of the experiment by dotted name."""


class Logger:
    """An observer that logs each epoch, the summary and the experiment's fields; of several processes, the first.

    The library is called in a background thread: training does not wait for it, whatever it does. Its first error is
    raised at the next record, after which the run's log calls this observer no more.
    """

    def __init__(
        self,
        library: str,
        open_run: Opener,
        workdir: str | os.PathLike[str],
        study: str | os.PathLike[str] | None = None,
        patience: float = PATIENCE_SECONDS,
    ):
        """Prepare to log; the library is not called before the run starts.

        Args:
          library: its name, for messages.
          open_run: opens the run in the library.
          workdir: of the run.
          study: the folder of the comparison or sweep that holds the workdir; its name becomes the run's group.
          patience: how many seconds the end of a run waits for the library.

        Raises:
          InputError: if the workdir is not in the study's folder.
        """
        self.__name__ = library
        self._open_run, self._patience = open_run, patience
        self._folder = parse_path(os.fspath(workdir))
        self._name, self._group = _describe_run(self._folder, study)
        self._worker: BackgroundWorker | None = None
        self._tasks: deque[Future[Any]] = deque()
        self._tracker: Tracker | None = None
        self._complete = False

    def __call__(self, record: Record) -> None:
        """Pass a record to the background thread.

        Raises:
          Exception: that of an earlier call of the library, or `TimeoutError` at the end of the run.
        """
        self._raise_error()
        match record:
            case StartRecord() if self._worker is None and multihost.is_first_process():
                # In this thread: two loggers must not write two ids.
                identity = RunIdentity(_run_id(self._folder), self._name, self._group, self._folder)
                self._worker, self._complete = BackgroundWorker(self.__name__), False
                self._submit(partial(self._open, identity, record.experiment))
            case EpochRecord():
                scalars = epoch_scalars(record) | {"examples_seen": record.examples_seen}
                self._submit(lambda: self._opened.log(scalars, record.step))
            case SummaryRecord(summary):
                self._complete = True
                self._submit(lambda: self._opened.summarize(summary_scalars(summary), summary["updates"]))
            case EndRecord():
                self._close()

    @property
    def _opened(self) -> Tracker:
        assert self._tracker is not None
        return self._tracker

    def _open(self, identity: RunIdentity, fields: Mapping[str, Any]) -> None:
        self._tracker = self._open_run(identity, fields)

    def _submit(self, task: Callable[[], None]) -> None:
        if self._worker is not None:
            self._tasks.append(self._worker.submit(task))

    def _raise_error(self) -> None:
        while self._tasks and self._tasks[0].done():
            error = self._tasks.popleft().exception()
            if error is not None:
                self._stop()
                # A library that exits must not end the process.
                raise error if isinstance(error, Exception) else RuntimeError(describe_error(error))

    def _close(self) -> None:
        if self._worker is None:
            return
        complete = self._complete
        self._submit(lambda: self._opened.finish(complete))
        late = concurrent.futures.wait(self._tasks, self._patience, concurrent.futures.FIRST_EXCEPTION).not_done
        self._raise_error()
        self._stop()
        if late:
            raise TimeoutError(f"it was still sending after {self._patience:g} s: its last data may be missing there")

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker, self._tracker = None, None
        self._tasks.clear()


def _describe_run(folder: Path, study: str | os.PathLike[str] | None) -> tuple[str, str | None]:
    """Return the run's name, and its group."""
    resolved = folder.resolve()
    if study is None:
        return resolved.name, None
    root = parse_path(os.fspath(study)).resolve()
    if root == resolved or not resolved.is_relative_to(root):
        raise InputError(f"the workdir {folder} is not in the study's folder {study}")
    return resolved.relative_to(root).as_posix(), root.name


def _run_id(folder: Path) -> str:
    """Return the id in the workdir; the first time, write a random one.

    Raises:
      InputError: if the file is damaged.
    """
    path = folder / LOGGING
    if not path.exists():
        write_json(path, {"run_id": secrets.token_hex(8)})
    document = read_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("run_id"), str):
        raise InputError(f"{path} is damaged: it holds no run_id")
    return document["run_id"]


def require_library(module: str, title: str) -> None:
    """Check that a library is installed, without the seconds that its import takes.

    Raises:
      InputError: naming the extra to install.
    """
    found = importlib.util.find_spec(module)
    # A folder of that name in the current one, such as wandb's own files, is a namespace package without an origin.
    if found is None or found.origin is None:
        raise InputError(f"logging to {title} needs {module}: pip install 'stepwise-jax[{module}]'")
