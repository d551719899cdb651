"""A logger as an observer of a run: the library works in the background, and can neither slow nor stop the run."""

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.runtime import multihost
from stepwise_jax.training.progress import RunLog
from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.loggers import Logger, RunIdentity, make_loggers
from stepwise_jax.workdir.records import EndRecord
from tests.workdir.example_records import epoch_record
from tests.workdir.loggers.made_libraries import EPOCHS, FIELDS, RESULT, RUN

START = RUN[0]


class Library:
    """Keeps what it gets; `fails` names the call that raises, `until` holds up its first call."""

    def __init__(self, fails: str = "", error: BaseException | None = None, until: threading.Event | None = None):
        self.calls: list[Any] = []
        self._fails, self._error, self._until = fails, error or OSError("no route to host"), until

    def open(self, identity: RunIdentity, fields: Mapping[str, Any]) -> "Library":
        if self._until:
            self._until.wait()
        return self._keep("open", identity, dict(fields))

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._keep("log", dict(scalars), step)

    def summarize(self, scalars: Mapping[str, float], step: int) -> None:
        self._keep("summarize", dict(scalars), step)

    def finish(self, complete: bool) -> None:
        self._keep("finish", complete)

    def _keep(self, name: str, *arguments: Any) -> "Library":
        if name == self._fails:
            raise self._error
        self.calls.append((name, *arguments))
        return self


def observers_events(folder: Path) -> list[str]:
    return [row["message"] for row in record_file.read_records(folder).events if row["name"] == "observer"]


def test_a_run_reaches_the_library_in_order(tmp_path):
    library = Library()
    logger = Logger("Made", library.open, tmp_path / "demo")
    (tmp_path / "demo").mkdir()
    for record in RUN:
        logger(record)
    (_, identity, fields), *rest = library.calls
    assert (identity.name, identity.group, fields) == ("demo", None, FIELDS)
    logged = [("log", pytest.approx(scalars), step) for step, scalars in EPOCHS.items()]
    assert rest == [*logged, ("summarize", RESULT, 120), ("finish", True)]


def test_a_run_that_resumes_has_the_id_of_before(tmp_path):
    library = Library()
    for workdir in ("first", "first", "second"):
        (tmp_path / workdir).mkdir(exist_ok=True)
        logger = Logger("Made", library.open, tmp_path / workdir)
        for record in (START, epoch_record(), EndRecord(), EndRecord()):
            logger(record)
    first, again, second = (call[1].id for call in library.calls if call[0] == "open")
    assert first == again != second
    # Stopped before the summary.
    assert [call for call in library.calls if call[0] == "finish"] == 3 * [("finish", False)]


def test_a_damaged_id_is_a_sentence(tmp_path):
    (tmp_path / "logging.json").write_text("[]")
    with pytest.raises(InputError, match=r"logging.json is damaged: it holds no run_id"):
        Logger("Made", Library().open, tmp_path)(START)


def test_the_study_is_the_group_and_the_path_in_it_the_name(tmp_path):
    library = Library()
    folder = tmp_path / "compared" / "stepwise" / "seed0"
    folder.mkdir(parents=True)
    logger = Logger("Made", library.open, folder, tmp_path / "compared")
    logger(START)
    logger(EndRecord())
    assert (library.calls[0][1].group, library.calls[0][1].name) == ("compared", "stepwise/seed0")
    with pytest.raises(InputError, match="is not in the study's folder"):
        Logger("Made", library.open, tmp_path / "elsewhere", tmp_path / "compared")


def test_a_library_that_hangs_holds_up_nothing_but_a_short_wait_at_the_end(tmp_path):
    answer = threading.Event()
    library = Library(until=answer)
    logger = Logger("Made", library.open, tmp_path, patience=0.05)
    with RunLog(tmp_path, [logger]) as log:
        log.show(START)
        for epoch in (1, 2, 3):
            log.record(epoch_record(1, epoch))
    (message,) = observers_events(tmp_path)
    assert message.startswith("the observer Made failed (TimeoutError: it was still sending after 0.05 s")
    assert len(record_file.read_records(tmp_path).epochs) == 3
    assert library.calls == []
    answer.set()


@pytest.mark.parametrize(
    ("error", "described"),
    [(OSError("no route to host"), "OSError: no route to host"), (SystemExit("bye"), "RuntimeError: SystemExit: bye")],
)
@pytest.mark.parametrize("fails", ["open", "log", "summarize", "finish"])
def test_an_error_of_the_library_is_one_event_and_the_run_goes_on(tmp_path, fails, error, described):
    with RunLog(tmp_path, [Logger("Made", Library(fails, error).open, tmp_path)]) as log:
        for record in RUN[:-1]:
            log.show(record)
    assert observers_events(tmp_path) == [f"the observer Made failed ({described}): it is no longer called"]


def test_only_the_first_of_several_processes_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(multihost, "is_first_process", lambda: False)
    library = Library()
    logger = Logger("Made", library.open, tmp_path)
    for record in RUN:
        logger(record)
    assert library.calls == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandb", "logging to Weights & Biases needs wandb: pip install 'stepwise-jax[wandb]'"),
        ("mlflow", "logging to MLflow needs mlflow: pip install 'stepwise-jax[mlflow]'"),
        ("trackio", "logging to Trackio needs trackio: pip install 'stepwise-jax[trackio]'"),
        ("tensorboard", "--log is 'tensorboard': it must be wandb or mlflow or trackio; TensorBoard's events are"),
    ],
)
def test_a_logger_that_cannot_be_had_is_a_sentence(tmp_path, monkeypatch, name, message):
    # A folder of that name, as wandb leaves in the current one, is not the library.
    (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(InputError) as caught:
        make_loggers([name], tmp_path)
    assert str(caught.value).startswith(message)
