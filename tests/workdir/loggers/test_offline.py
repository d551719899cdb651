"""The libraries themselves, offline: what they have stored of a run that was stopped and resumed."""

import json
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.loggers import Logger, log_to_mlflow, log_to_trackio, log_to_wandb
from stepwise_jax.workdir.records import EndRecord
from tests.workdir.loggers.made_libraries import EPOCHS, FIELDS, RESULT, RUN

# Their own warnings are no concern of these tests.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The workdir of a run of a comparison; no library looks for a network."""
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HF_HUB_OFFLINE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_DIR", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "compared" / "stepwise" / "seed0"
    path.mkdir(parents=True)
    return path


def stop_and_resume(logger: Callable[..., Logger], folder: Path) -> str:
    """Log a run in two parts, the second of which repeats an epoch; returns its id."""
    for records in ((*RUN[:2], EndRecord()), RUN):
        observer = logger(folder, folder.parents[1], patience=600)
        for record in records:
            observer(record)
    return read_json(folder / "logging.json")["run_id"]


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: a log in LevelDB's format, after seven bytes of its own."""
    from wandb.proto import wandb_internal_pb2  # pyright: ignore[reportMissingImports]

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left_in_block = 32768 - at % 32768
        if left_in_block < 7:
            at += left_in_block
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def wandb_values(items: Any) -> dict[str, Any]:
    named = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
    return {name: value for name, value in named.items() if not name.startswith("_")}


def test_wandb(folder):
    pytest.importorskip("wandb", reason="wandb is not installed")
    run_id = stop_and_resume(log_to_wandb, folder)
    paths = sorted((folder / "wandb").glob(f"offline-run-*/run-{run_id}.wandb"))
    rows, codes, summary = [], [], {}
    for path in paths:
        for record in wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = record.run
                assert (run.run_id, run.display_name, run.run_group) == (run_id, "stepwise/seed0", "compared")
                assert run.project == "stepwise-jax"
                config = wandb_values(run.config.update)
                assert config == json.loads(json.dumps(FIELDS))
            elif kind == "history":
                rows.append(wandb_values(record.history.item))
            elif kind == "summary":
                summary |= wandb_values(record.summary.update)
            elif kind == "exit":
                codes.append(record.exit.exit_code)
    expected = [EPOCHS[step] | {"step": step} for step in (110, 110, 120)]
    assert rows == [pytest.approx(each) for each in expected]
    assert {name: summary[name] for name in RESULT} == pytest.approx(RESULT)
    # Two runs within a second share a folder.
    assert codes in ([1, 0], [0])


def test_mlflow(folder):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    run_id = stop_and_resume(log_to_mlflow, folder)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("stepwise-jax")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("stepwise/seed0", "FINISHED")
    assert run.data.tags["stepwise_jax.run_id"] == run_id
    assert run.data.tags["stepwise_jax.group"] == "compared"
    assert run.data.params == {name: str(value) for name, value in FIELDS.items()}
    for step, scalars in EPOCHS.items():
        for tag, value in scalars.items():
            history = client.get_metric_history(run.info.run_id, tag)
            assert [metric.value for metric in history if metric.step == step][-1] == pytest.approx(value)
    assert {name: run.data.metrics[name] for name in RESULT} == pytest.approx(RESULT)


def test_trackio(folder, tmp_path):
    trackio = pytest.importorskip("trackio", reason="trackio is not installed")
    # It reads the variable when it is imported, which another test may have done.
    store = Path(trackio.utils.TRACKIO_DIR) / "stepwise-jax.db"
    name = f"stepwise/seed0 {stop_and_resume(log_to_trackio, folder)[:8]}"
    with sqlite3.connect(store) as database:
        query = "SELECT step, metrics, run_id FROM metrics WHERE run_name = ? ORDER BY id"
        rows = database.execute(query, [name]).fetchall()
        configs = database.execute("SELECT config FROM configs WHERE run_name = ?", [name]).fetchall()
    database.close()
    expected = [(110, EPOCHS[110]), (110, EPOCHS[110]), (120, EPOCHS[120]), (120, RESULT)]
    assert [(step, json.loads(metrics)) for step, metrics, _ in rows] == [
        (step, pytest.approx(scalars)) for step, scalars in expected
    ]
    assert len({run_id for *_, run_id in rows}) == 1
    (config,) = (json.loads(text) for (text,) in configs)
    assert {field: config[field] for field in FIELDS} == json.loads(json.dumps(FIELDS))
    assert config["_Group"] == "compared"


def test_runs_that_start_at_once_share_a_new_mlflow_database(folder):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    program = """
import sys
from stepwise_jax.workdir.loggers import log_to_mlflow
from tests.workdir.loggers.made_libraries import RUN
observer = log_to_mlflow(sys.argv[1], patience=600)
for record in RUN:
    observer(record)
"""
    seeds = [folder.with_name(f"seed{seed}") for seed in (1, 2)]
    for seed in seeds:
        seed.mkdir()
    root = Path(__file__).parents[3]
    started = [subprocess.Popen([sys.executable, "-c", program, str(seed)], cwd=root) for seed in seeds]
    assert [process.wait() for process in started] == [0, 0]
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("stepwise-jax").experiment_id])
    assert sorted((run.info.run_name, run.info.status) for run in runs) == [
        ("seed1", "FINISHED"),
        ("seed2", "FINISHED"),
    ]
