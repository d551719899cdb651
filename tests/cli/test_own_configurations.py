"""A user's own configuration files: what they may hold, and the sentences about their errors."""

import json
from pathlib import Path

import pytest

import launch
from tests.cli.command_line import ROOT, fails


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is neither a file nor a shipped configuration"),
        ("x = 1", "has no function get_config()"),
        ("def get_config(): return 3", "returned int, not an ExperimentConfig"),
        ("def get_config(): return undefined", "line 1: NameError"),
        ("def get_config(:", "SyntaxError"),
        ("raise SystemExit(0)", "does not run"),
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        (
            "from stepwise_jax.experiment.config import PlanConfig\ndef get_config(): return PlanConfig(batch_size=0)",
            "at least 1",
        ),
    ],
)
def test_bad_configuration_files_get_one_sentence(capsys, tmp_path, content, message):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    assert message in fails(capsys, "plan", str(path))


@pytest.mark.parametrize(
    ("neighbour", "message"),
    [
        ("A = 1\nB = undefined\n", "does not run: line 2 of {}: NameError: name 'undefined' is not defined"),
        ("A = 1\n\ndef f(:\n", "does not run: line 3 of {}: SyntaxError"),
        ("import no_such_module_at_all", "does not run: line 1 of {}: ModuleNotFoundError"),
        (
            "from stepwise_jax import PlanConfig\n\nPLAN = PlanConfig(batch_size=0)",
            ": line 3 of {}: plan.batch_size is 0: it must be at least 1",
        ),
    ],
)
@pytest.mark.parametrize("folder", [".", "configs", None])
def test_an_error_in_a_neighbour_names_its_file_and_line(capsys, tmp_path, monkeypatch, folder, neighbour, message):
    monkeypatch.chdir(tmp_path)
    place = Path(folder or tmp_path / "elsewhere")
    place.mkdir(exist_ok=True)
    (place / "shared.py").write_text(neighbour)
    (place / "mine.py").write_text("\n\nfrom . import shared\n")
    assert message.format(place / "shared.py") in fails(capsys, "plan", str(place / "mine.py"))


def test_an_error_in_a_field_names_its_line(capsys, tmp_path):
    text = "from stepwise_jax import PlanConfig\n\ndef get_config():\n    return PlanConfig(batch_size=0)\n"
    (tmp_path / "mine.py").write_text(text)
    message = f"CONFIG {str(tmp_path / 'mine.py')!r}: line 4: plan.batch_size is 0: it must be at least 1"
    assert message in fails(capsys, "plan", str(tmp_path / "mine.py"))


def test_a_configuration_that_failed_is_not_imported_in_part(capsys, tmp_path):
    (tmp_path / "first.py").write_text("A = 1\nB = undefined\n")
    (tmp_path / "second.py").write_text("from . import first\n")
    for name in ("first", "second"):
        assert "NameError: name 'undefined'" in fails(capsys, "plan", str(tmp_path / f"{name}.py"))


def test_a_configuration_may_have_dataclasses_and_late_annotations(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Mine:\n"
        "    rate: float = 0.5\n"
        "def get_config() -> ExperimentConfig:\n"
        "    return ExperimentConfig(plan=PlanConfig(learning_rate=Mine().rate))\n"
    )
    assert launch.main(["plan", str(tmp_path / "mine.py"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["learning_rate"] == 0.5


def test_a_misspelt_configuration_gets_the_nearest(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "did you mean configs/digits.py?" in fails(capsys, "plan", "configs/digit.py")


def test_a_cause_of_several_lines_is_shortened_to_one(capsys, tmp_path):
    (tmp_path / "two.py").write_text('raise RuntimeError("one\\ntwo")')
    assert "does not run: line 1: RuntimeError: one\n" in fails(capsys, "plan", str(tmp_path / "two.py"))
