"""The examples that the documentation shows, run as a reader would run them, but shorter."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TinyNet
from PIL import Image

import launch
from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Sizes
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.functional import networks
from stepwise_jax.training import train as training
from stepwise_jax.workdir import json_files, record_file
from tests.cli.command_line import fails

EXAMPLES = Path(__file__).parents[2] / "examples"
STRATEGY = str(EXAMPLES / "own_strategy.py")


@pytest.fixture(autouse=True)
def prepared_digits(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))


@pytest.fixture
def run(monkeypatch):
    """Runs an example as a script and returns its exit status."""

    def script(name: str, *words: str) -> object:
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return ended.value.code

    return script


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_it_is_shown_in_the_documentation(path):
    pages = "".join(page.read_text() for page in (EXAMPLES.parent / "docs").glob("*.md"))
    assert f'\n--8<-- "examples/{path.name}"\n' in pages


def test_own_strategy_doubles_data_and_batch(capsys):
    assert launch.main(["plan", STRATEGY, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    planned = [(stage["examples"], stage["batch_size"], stage["epochs"]) for stage in document["stages"]]
    assert planned == [(180, 16, 5), (359, 32, 5), (718, 64, 5), (1437, 128, 5)]
    assert document["relative_samples"] == pytest.approx((180 + 359 + 718 + 1437) / (4 * 1437))
    scales = [stage["noise_scale"] for stage in document["stages"]]
    assert scales == pytest.approx([0.02 * 1437 / 128] * 4, rel=0.01)


def test_own_strategy_trains(tmp_path, monkeypatch):
    # Four batch sizes are four programs: those of a network that compiles in a moment.
    monkeypatch.setattr(networks, "build_network", lambda *_: TinyNet())
    shorter = ["--plan.epochs_per_stage", "1", "--plan.decay_every", "1", "--data.image_size", "8"]
    assert launch.main(["train", STRATEGY, "--workdir", str(tmp_path), *shorter]) == 0
    assert json_files.read_json(tmp_path / "summary.json")["updates"] == 4 * 11


def test_photographs_are_planned_in_the_papers_proportions(tmp_path, capsys):
    for row in range(100):
        place = tmp_path / ("cat" if row % 2 else "dog")
        place.mkdir(exist_ok=True)
        Image.new("RGB", (9, 7), (row, 0, 0)).save(place / f"{row}.png")
    assert launch.main(["plan", str(EXAMPLES / "photographs.py"), "--data.root", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [stage["examples"] for stage in document["stages"]] == [16, 32, 48, 64, 80]
    assert document["relative_samples"] == pytest.approx(0.6)
    assert document["relative_updates"] == pytest.approx(0.36)


def test_own_network_trains(run, tmp_path, capsys):
    assert run("own_network.py", "--workdir", str(tmp_path / "run"), "--epochs", "1") == 0
    assert "set O, epoch 1: top-1 " in capsys.readouterr().out
    epochs = record_file.read_records(tmp_path / "run").epochs
    assert [row["stage_name"] for row in epochs] == ["A", "B", "C", "D", "O"]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    the_commands_use(tmp_path / "run", capsys)


def the_commands_use(run: Path, capsys) -> None:
    """Checks that commands load the example's network from the run's record of it."""
    Image.new("L", (16, 16)).save(run.parent / "black.png")
    summary = json_files.read_json(run / "summary.json")
    assert launch.main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == summary["metrics"]
    assert launch.main(["predict", str(run), str(run.parent / "black.png"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)[0]["classes"]) == 5
    assert launch.main(["export", str(run), "--out", str(run.parent / "own.stablehlo")]) == 0
    assert "10 classes" in capsys.readouterr().out
    refusal = "OwnNetwork has no names in PyTorch: name a .stablehlo file"
    assert refusal in fails(capsys, "export", str(run), "--out", str(run.parent / "own.safetensors"))


def test_adamw_mixup_trains_and_is_evaluated(monkeypatch, tmp_path, capsys):
    # Another network, because those by name take a minute to compile.
    for module in (networks, training):
        monkeypatch.setattr(module, "build_network", lambda *_: TinyNet())
    monkeypatch.setattr(sys, "argv", ["adamw_mixup.py", str(tmp_path / "run")])
    module = runpy.run_path(str(EXAMPLES / "adamw_mixup.py"), run_name="__main__")
    assert len((EXAMPLES / "adamw_mixup.py").read_text().splitlines()) <= 40
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in printed] == [[name, str(epoch)] for name in "ABCDO" for epoch in range(1, 5)]
    assert all(line[2::2] == ["top1", "top5", "loss", "margin"] for line in printed)
    assert float(printed[-1][3]) > 0.8
    logits = np.array([[1.0, 4.0, 2.5], [3.0, -1.0, 0.0]], np.float32)
    np.testing.assert_allclose(module["margin"](logits, np.array([1, 2])), [1.5, -3.0])
    assert launch.main(["evaluate", str(tmp_path / "run")]) == 0
    assert f"margin {float(printed[-1][9]):.4g}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["own_network.py", "own_dataset.py"])
def test_bad_input_is_one_sentence(run, tmp_path, capsys, name):
    (tmp_path / "file").write_text("")
    option = "--workdir" if name == "own_network.py" else "--data-dir"
    assert run(name, option, str(tmp_path / "file")) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert str(tmp_path / "file") in told


def test_own_dataset_is_stored_and_trained_on(run, train, tmp_path):
    assert run("own_dataset.py", "--data-dir", str(tmp_path)) == 0
    data = DataConfig(name="stepwise_shapes", data_dir=str(tmp_path))
    assert datasets.sizes(data) == Sizes(train=2000, test=500, num_classes=2)
    dataset = datasets.open_dataset(data)
    stored = datasets.load(dataset, "test", 16, lambda *_: None)
    draw = runpy.run_path(str(EXAMPLES / "own_dataset.py"))["draw"]
    for image, label, name in zip(stored.images[:5], stored.labels[:5], stored.ids[:5], strict=True):
        np.testing.assert_array_equal(image, draw(name))
        assert label == int(name.partition("/")[2]) % 2
    fields = {"data.name": data.name, "data.data_dir": data.data_dir, "plan.epochs_per_stage": 2}
    summary = train(tmp_path / "run", **fields)
    assert summary["updates"] == 2 * (200 // 32 + 1000 // 64 + 2000 // 32)
