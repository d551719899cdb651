"""Stand-ins for wandb, MLflow and Trackio that keep what they are told, and the records of a made-up run."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from stepwise_jax.workdir.records import EndRecord, Record, StartRecord, SummaryRecord
from tests.workdir.example_records import epoch_record

FIELDS = {"plan.batch_size": 24, "data.augmentation": ("flip",), "model.blocks": None}
SUMMARY = {
    "top1": 0.9,
    "top5": None,
    "updates": 120,
    "metrics": {"top1": 0.9, "margin": 0.25},
    "seconds": {"train": 3.0},
    "stages": [],
    "state_sha256": "ab",
}
RUN: tuple[Record, ...] = (
    StartRecord("resnet on digits", [], 10_000, FIELDS),
    epoch_record(1, 1),
    epoch_record(1, 2, top1=None, train_loss=float("nan")),
    SummaryRecord(SUMMARY),
    EndRecord(),
)

SCHEDULE = {"schedule/learning_rate": 0.001, "schedule/batch_size": 24, "schedule/noise_scale": 0.0119}
SCORES = {"test/top1": 0.9, "test/top5": 0.99, "test/loss": 0.6, "train/loss": 0.5}
EPOCHS = {
    110: SCORES | SCHEDULE | {"examples_seen": 2640},
    120: {"test/top5": 0.99, "test/loss": 0.6} | SCHEDULE | {"examples_seen": 2880},
}
"""What a tracking library gets of `RUN`, by step."""
RESULT = {"summary/top1": 0.9, "summary/updates": 120, "summary/margin": 0.25, "summary/seconds/train": 3.0}


def _module(monkeypatch: Any, name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(contents, __spec__=ModuleSpec(name, None, origin="made"))
    monkeypatch.setitem(sys.modules, name, module)
    return module


class MadeRun:
    """A run of wandb or Trackio: `started` with arguments, then `rows`, a `summary`, and how it `ended`."""

    def __init__(self, **started: Any):
        self.started, self.rows, self.summary, self.axes = started, [], {}, {}
        self.ended: Any = None

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes[name] = step_metric

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, metrics))

    def finish(self, exit_code: int | None = None) -> None:
        self.ended = "finished" if exit_code is None else exit_code


def install_wandb(monkeypatch: Any, mode: str = "offline", key: str = "") -> list[MadeRun]:
    """Make `import wandb` find a stand-in; returns its runs."""
    runs: list[MadeRun] = []

    def init(**started: Any) -> MadeRun:
        runs.append(MadeRun(**started))
        return runs[-1]

    def login(prompt: bool, verify: bool) -> bool:
        assert (prompt, verify) == (False, False), "nothing may wait for a person or a server"
        if key == "short":
            raise OSError("API key must have 40+ characters, has 5.\nmore")
        return bool(key)

    setup = SimpleNamespace(settings=SimpleNamespace(mode=mode))
    _module(monkeypatch, "wandb", init=init, Settings=dict, setup=lambda: setup, login=login, Error=OSError)
    return runs


def install_trackio(monkeypatch: Any) -> list[MadeRun]:
    """Make `import trackio` find a stand-in; returns its runs."""
    runs: list[MadeRun] = []

    def init(**started: Any) -> MadeRun:
        runs.append(MadeRun(**started))
        return runs[-1]

    _module(monkeypatch, "trackio", init=init)
    return runs


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class MlflowStore:
    """An `MlflowClient`, and the store behind it."""

    def __init__(self):
        self.experiments: list[str] = []
        self.runs: list[Any] = []

    def get_experiment_by_name(self, name: str) -> Any:
        known = name in self.experiments
        return SimpleNamespace(experiment_id=f"id of {name}") if known else None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return f"id of {name}"

    def search_runs(self, experiments: list[str], query: str) -> list[Any]:
        tag, _, value = query.removeprefix("tags.").partition(" = ")
        return [
            run for run in self.runs if run.experiment in experiments and run.tags[tag.strip("`")] == value.strip("'")
        ]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        run = SimpleNamespace(experiment=experiment, name=run_name, tags=tags, metrics=[], statuses=[])
        run.info, run.data = SimpleNamespace(run_id=len(self.runs)), SimpleNamespace(params={})
        self.runs.append(run)
        return run

    def update_run(self, number: int, status: str) -> None:
        self.runs[number].statuses.append(status)

    set_terminated = update_run

    def log_batch(self, number: int, metrics: Any = (), params: Any = ()) -> None:
        assert not self.runs[number].data.params.keys() & dict(params).keys(), "a parameter is logged once"
        self.runs[number].metrics += metrics
        self.runs[number].data.params.update(dict(params))


def install_mlflow(monkeypatch: Any) -> MlflowStore:
    """Make `import mlflow` find a stand-in; returns its store."""
    store = MlflowStore()
    _module(monkeypatch, "mlflow", MlflowClient=lambda uri: store, get_tracking_uri=lambda: "http://127.0.0.1")
    _module(monkeypatch, "mlflow.entities", Metric=Metric, Param=Param)
    _module(monkeypatch, "mlflow.exceptions", MlflowException=RuntimeError)
    return store
