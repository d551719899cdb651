"""What each tracking library gets of a run, with a stand-in for the library."""

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.loggers import log_to_mlflow, log_to_trackio, log_to_wandb, mlflow_runs
from stepwise_jax.workdir.records import EndRecord
from tests.workdir.example_records import epoch_record
from tests.workdir.loggers.made_libraries import (
    EPOCHS,
    FIELDS,
    RESULT,
    RUN,
    install_mlflow,
    install_trackio,
    install_wandb,
)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "compared" / "stepwise" / "seed0"
    path.mkdir(parents=True)
    return path


def run_id(folder) -> str:
    return read_json(folder / "logging.json")["run_id"]


def test_wandb(folder, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    runs = install_wandb(monkeypatch)
    logger = log_to_wandb(folder, folder.parents[1], tags=["mine"])
    for record in RUN:
        logger(record)
    (run,) = runs
    expected = {"project": "stepwise-jax", "name": "stepwise/seed0", "group": "compared", "id": run_id(folder)}
    expected |= {"dir": str(folder), "config": FIELDS, "resume": "allow", "reinit": "create_new", "tags": ["mine"]}
    assert {name: run.started[name] for name in expected} == expected
    assert run.started["settings"]["console"] == "off"
    # All is drawn over the run's own step, and wandb's counter is free to count.
    assert run.axes == {"step": None, "*": "step"}
    assert run.rows == [(None, pytest.approx(scalars | {"step": step})) for step, scalars in EPOCHS.items()]
    assert run.summary == RESULT | {"step": 120}
    assert run.ended == 0


def test_wandb_of_a_stopped_run_has_failed(folder, monkeypatch):
    runs = install_wandb(monkeypatch, mode="online", key="long")
    logger = log_to_wandb(folder)
    for record in (RUN[0], epoch_record(), EndRecord()):
        logger(record)
    assert runs[0].ended == 1


def test_wandb_without_a_key_is_a_sentence_unless_it_is_offline(folder, monkeypatch):
    install_wandb(monkeypatch, mode="online")
    with pytest.raises(InputError, match=r"has no API key: run `wandb login`, or set WANDB_MODE=offline"):
        log_to_wandb(folder)
    log_to_wandb(folder, mode="offline")
    install_wandb(monkeypatch, mode="online", key="short")
    with pytest.raises(InputError, match=r"cannot log in: API key must have 40\+ characters, has 5\.$"):
        log_to_wandb(folder)


def test_mlflow(folder, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    store = install_mlflow(monkeypatch)
    for records in ((*RUN[:2], EndRecord()), (RUN[0], *RUN[2:])):
        # Stopped, and resumed.
        logger = log_to_mlflow(folder, folder.parents[1])
        for record in records:
            logger(record)
    (run,) = store.runs
    assert (store.experiments, run.experiment, run.name) == (["stepwise-jax"], "id of stepwise-jax", "stepwise/seed0")
    assert run.tags == {mlflow_runs.ID_TAG: run_id(folder), mlflow_runs.GROUP_TAG: "compared"}
    assert run.data.params == {name: str(value) for name, value in FIELDS.items()}
    assert run.statuses == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    logged: dict[int, dict[str, float]] = {}
    for metric in run.metrics:
        logged.setdefault(metric.step, {})[metric.key] = metric.value
    assert logged == {110: pytest.approx(EPOCHS[110]), 120: pytest.approx(EPOCHS[120] | RESULT)}


def test_mlflow_accepts_any_metrics_name(folder, monkeypatch):
    store = install_mlflow(monkeypatch)
    logger = log_to_mlflow(folder, experiment="mine")
    record = epoch_record()
    record.metrics["top-1 (5+) größe"] = 0.5  # pyright: ignore[reportIndexIssue]
    for each in (RUN[0], record, EndRecord()):
        logger(each)
    assert "test/top-1 _5__ größe" in {metric.key for metric in store.runs[0].metrics}
    assert store.experiments == ["mine"]


def test_trackio(folder, monkeypatch):
    runs = install_trackio(monkeypatch)
    logger = log_to_trackio(folder, folder.parents[1], project="mine")
    for record in RUN:
        logger(record)
    (run,) = runs
    expected = {"project": "mine", "name": f"stepwise/seed0 {run_id(folder)[:8]}", "group": "compared"}
    assert run.started == expected | {"config": FIELDS, "resume": "allow", "embed": False}
    epochs = [(step, pytest.approx(scalars)) for step, scalars in EPOCHS.items()]
    assert run.rows == [*epochs, (120, RESULT)]
    assert run.ended == "finished"
