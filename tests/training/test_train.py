"""Training from Python: records as an iterator, recipes, and what a run with functions of one's own leaves behind."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TinyNet
from flax import linen as nn
from PIL import Image

import launch
import stepwise_jax as sj
from stepwise_jax.errors import InputError
from stepwise_jax.training.train import train
from stepwise_jax.workdir.records import EpochRecord, SummaryRecord
from tests.digits_run import config


class DropoutNet(nn.Module):
    """A network that draws random numbers while it trains, and has no batch norm."""

    num_classes: int
    rate: float = 0.5

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(images))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How far the best class is ahead of the second."""
    best = jax.lax.top_k(logits, 2)[0]
    return best[:, 0] - best[:, 1]


RECIPE = sj.Recipe(
    optimizer=sj.optimizers.adamw,
    loss=sj.losses.cross_entropy(label_smoothing=0.1),
    augment=sj.augmentation.compose(sj.augmentation.flip_and_crop(1), sj.augmentation.mixup(0.4, num_classes=10)),
    metrics={"margin": margin},
    ema_decay=0.9,
    clip_norm=1.0,
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> sj.ExperimentConfig:
    return config(tmp_path_factory.mktemp("prepared"))


def records_of(*arguments: Any, **options: Any) -> list[Any]:
    return list(train(*arguments, **options))


def digest_of(workdir: Path) -> str:
    return json.loads((workdir / "summary.json").read_text())["state_sha256"]


@pytest.fixture(scope="module")
def undisturbed(experiment, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    records_of(experiment, DropoutNet(10), workdir=workdir, recipe=RECIPE)
    return workdir


def test_the_records_of_a_run_are_those_of_its_file(undisturbed, experiment, tmp_path):
    records = records_of(experiment, DropoutNet(10), workdir=str(tmp_path / "run"), recipe=RECIPE)
    epochs = [record for record in records if isinstance(record, EpochRecord)]
    stored = sj.read_records(tmp_path / "run").epochs
    assert [dict(record.metrics) for record in epochs] == [row["metrics"] for row in stored]
    assert set(epochs[0].metrics) == {
        f"{ema}{name}" for ema in ("", "ema_") for name in ("top1", "top5", "loss", "margin")
    }
    assert isinstance(records[-1], SummaryRecord)
    assert records[-1].summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert all(record.kind for record in records)


@pytest.mark.parametrize("updates", [1, 5, 9, 20])
def test_a_reader_that_stops_leaves_a_checkpoint_and_the_run_resumes_to_the_bit(
    undisturbed, experiment, tmp_path, updates
):
    records: Any = train(experiment, DropoutNet(10), workdir=tmp_path / "run", recipe=RECIPE)
    steps = (record for record in records if record.kind == "steps")
    for _ in range(updates):
        next(steps)
    steps.close()
    records.close()
    saved = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(saved) == updates
    records_of(experiment, DropoutNet(10), workdir=tmp_path / "run", recipe=RECIPE)
    assert digest_of(tmp_path / "run") == digest_of(undisturbed)


def test_without_a_workdir_nothing_stays_on_disk(undisturbed, experiment, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    *_, last = records_of(experiment, DropoutNet(10), recipe=RECIPE)
    assert last.summary["state_sha256"] == digest_of(undisturbed)
    assert not list(tmp_path.iterdir())


def test_another_parameter_of_an_augmentation_is_another_experiment(undisturbed, experiment):
    weaker = sj.augmentation.compose(sj.augmentation.flip_and_crop(1), sj.augmentation.mixup(0.2, num_classes=10))
    changed = dataclasses.replace(RECIPE, augment=weaker)
    with pytest.raises(InputError, match=r"holds another experiment \(data\.augmentation: "):
        records_of(experiment, DropoutNet(10), workdir=undisturbed, recipe=changed)


def test_the_network_that_trained_is_the_one_recorded(undisturbed, experiment):
    document = json.loads((undisturbed / "config.json").read_text())
    record = document["functions"]["model.name"]
    assert document["experiment"]["model"]["name"] == "DropoutNet"
    assert (record["name"], record["file"], record["arguments"]) == ("DropoutNet", __file__, {"rate": 0.5})
    assert len(record["sha256"]) == 64


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "report"])
def test_commands_find_the_functions_of_a_run_again(undisturbed, tmp_path, capsys, command):
    image = tmp_path / "image.png"
    Image.new("L", (8, 8), 128).save(image)
    words = {
        "evaluate": [str(undisturbed), "--json"],
        "predict": [str(undisturbed), str(image)],
        "export": [str(undisturbed), "--out", str(tmp_path / "network.stablehlo")],
        "report": [str(undisturbed), "--out", str(tmp_path / "report")],
    }[command]
    capsys.readouterr()
    assert launch.main([command, *words]) == 0
    out = capsys.readouterr().out
    if command == "evaluate":
        last = sj.read_records(undisturbed).epochs[-1]
        assert json.loads(out)["metrics"] == pytest.approx(last["metrics"], rel=1e-6)
    if command == "report":
        text = (tmp_path / "report" / "report.md").read_text()
        assert "EMA top-1" in text
        assert "margin" in text
        assert "DropoutNet" in text


def test_the_paper_is_the_default_recipe(experiment, tmp_path):
    with_recipe, without = tmp_path / "with", tmp_path / "without"
    records_of(experiment, TinyNet(), workdir=with_recipe, recipe=sj.Recipe())
    records_of(experiment, TinyNet(), workdir=without)
    assert digest_of(with_recipe) == digest_of(without)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "resnet50"}, "network is a str: it must be a flax.linen.Module"),
        ({"network": DropoutNet(7)}, r"DropoutNet turns \[2, 16, 16, 3\] into \(2, 7\), not \[2, 10\]"),
        ({"workdir": "gs://bucket/run"}, "workdir: gs://bucket/run is a URL"),
        ({"workdir": 7}, "workdir: "),
        ({"observers": ["print"]}, "observers has 'print': it must be a function of a record"),
    ],
)
def test_bad_input_is_refused(experiment, arguments, message):
    with pytest.raises(InputError, match=message):
        records_of(experiment, **{"network": DropoutNet(10), **arguments})


def test_lists_numpy_numbers_and_paths_serve_as_fields(tmp_path):
    fields: dict[str, Any] = {"fractions": [0.5, 1.0], "batch_multipliers": [1, 2]}
    numbers: dict[str, Any] = {"batch_size": np.int64(8), "learning_rate": np.float32(0.5)}
    plan = sj.PlanConfig(**fields, **numbers)
    assert plan == sj.PlanConfig(fractions=(0.5, 1.0), batch_multipliers=(1, 2), batch_size=8, learning_rate=0.5)
    assert sj.DataConfig(data_dir=tmp_path).data_dir == str(tmp_path)  # pyright: ignore
    stage = sj.Stage("A", 0.5, np.int64(10), 2, 0.1, 3, milestones=[1])  # pyright: ignore
    assert (stage.examples, stage.milestones) == (10, (1,))
    assert type(stage.examples) is int
