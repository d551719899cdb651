"""The page about extending: each configuration that it shows is trained, and each command that it shows is checked."""

import json
import re
import shlex

import pytest
from conftest import TinyNet

import launch
from stepwise_jax.cli.parsing.overrides import load_experiment
from stepwise_jax.data import datasets
from stepwise_jax.experiment.serialization import experiment_functions, flatten_fields
from stepwise_jax.functional import networks
from stepwise_jax.functional.checks import check_experiment
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.record_file import read_records
from tests.cli.command_line import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
CONFIGURATIONS = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def get_config" in block]
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
FIELDS = {
    "adabelief": "optimizer.name",
    "poly1": "loss.name",
    "compose.<locals>.augment": "data.augmentation",
    "brier": "evaluation.metrics.brier",
    "worst_class": "evaluation.metrics.worst_class",
    "halve_momentum": "plan.carry",
    "DropoutNetwork": "model.name",
}
SHORT = [
    *("--plan.fractions", "0.1", "1", "--plan.batch_multipliers", "1", "1", "--plan.batch_size", "32"),
    *("--plan.epochs_per_stage", "1", "--plan.learning_rate_rule", "constant", "--plan.learning_rate", "0.01"),
    *("--data.image_size", "8"),
]

pytestmark = pytest.mark.usefixtures("prepared_digits")


def test_each_kind_of_function_has_a_configuration():
    assert len(CONFIGURATIONS) == len(FIELDS)


@pytest.mark.parametrize(("text", "name"), [*zip(CONFIGURATIONS, FIELDS, strict=True)], ids=FIELDS.values())
def test_a_configuration_of_the_page_trains_and_is_evaluated(tmp_path, monkeypatch, capsys, text, name):
    assert len([line for line in text.splitlines() if line.strip()]) <= 20
    if FIELDS[name] != "model.name":
        monkeypatch.setattr(networks, "build_network", lambda *_: TinyNet())
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(text)
    assert launch.main(["train", str(file), "--workdir", str(run), *SHORT]) == 0
    recorded = read_json(run / "config.json")["functions"]
    assert {field: each["name"] for field, each in recorded.items()} == {FIELDS[name]: name}
    capsys.readouterr()
    assert launch.main(["evaluate", str(run), "--json"]) == 0
    summary = read_json(run / "summary.json")
    assert json.loads(capsys.readouterr().out)["metrics"] == summary["metrics"]
    assert summary["updates"] == 4 + 44
    first, last = read_records(run).epochs
    assert last["train_loss"] < first["train_loss"]


@pytest.mark.parametrize("command", [line for line in COMMANDS if " train configs/" in line])
def test_a_command_of_the_page_names_what_it_says(command):
    words = shlex.split(command)
    assert words[:3] == ["python", "launch.py", "train"]
    assert words[4] == "--workdir"
    experiment = load_experiment(str(ROOT / words[3]), words[6:], "train")
    plain = flatten_fields(load_experiment(str(ROOT / words[3]), [], "train"))
    changed = {name for name, value in flatten_fields(experiment).items() if value != plain[name]}
    assert changed == {word.removeprefix("--") for word in words[6:] if word.startswith("--")}
    assert not experiment_functions(experiment)
    stages = make_plan(experiment.plan, datasets.sizes(experiment.data).train, experiment.optimizer)
    check_experiment(experiment, stages, 10)


def test_the_page_has_a_command_for_each_shipped_choice():
    text = "\n".join(COMMANDS)
    for word in ("adamw", "lars", "focal", "flip crop:4", "mixup", "calibration_error", "shrink_perturb", "redrawn"):
        assert word in text
    for word in ("image_sizes", "microbatches", "warmup_epochs", "clip_norm", "ema_decay", "label_smoothing"):
        assert f".{word} " in text
