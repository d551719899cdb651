"""`compare` and `sweep` of a configuration file with functions of one's own, each run a process."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import launch
from stepwise_jax.report import report
from stepwise_jax.workdir.folder import read_config
from tests.cli.command_line import fails
from tests.own_configuration import OWN

FUNCTIONS = {
    "data.augmentation": "darken",
    "model.name": "Linear",
    "optimizer.name": "heavy_ball",
    "loss.name": "squared",
    "evaluation.metrics.confidence": "confidence",
}
COMMANDS = {
    "compare": ["--strategies", "stepwise,baseline", "--seeds", "1"],
    "sweep": ["--grid", "plan.learning_rate=0.001,0.02"],
}
RUNS = {
    "compare": ["baseline/seed0", "stepwise/seed0"],
    "sweep": ["best/{best}/seed0", "plan.learning_rate=0.001/seed0", "plan.learning_rate=0.02/seed0"],
}


WRITE_REPORT = report.write_report


def words(command: str, folder: Path) -> list[str]:
    return [command, str(folder / "mine.py"), "--workdir", str(folder / command), *COMMANDS[command]]


def runs(root: Path) -> dict[str, Path]:
    return {str(path.parent.relative_to(root)): path.parent for path in root.rglob("summary.json")}


@pytest.fixture(scope="module", params=["compare", "sweep"])
def study(request, data_dir, tmp_path_factory):
    """The name of a command, and a folder with its finished study."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "mine.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(data_dir))
        # Drawn once, by the test of the command `report`.
        patch.setattr(report, "write_report", lambda *_: None)
        assert launch.main(words(request.param, folder)) == 0
        yield request.param, folder


def test_every_run_is_trained_and_scored_with_the_functions(study):
    command, folder = study
    best = ""
    if command == "sweep":
        ((field, value),) = json.loads((folder / "sweep" / "results.json").read_text())["best"].items()
        best = f"{field}={value}"
    found = runs(folder / command)
    assert sorted(found) == [name.format(best=best) for name in RUNS[command]]
    for run in found.values():
        recorded = read_config(run)["functions"]
        assert {field: record["name"] for field, record in recorded.items()} == FUNCTIONS
        metrics = json.loads((run / "summary.json").read_text())["metrics"]
        with np.load(run / "predictions.npz") as stored:
            probabilities, wanted = stored["probabilities"], np.eye(10)[stored["labels"]]
        assert metrics["confidence"] == pytest.approx(probabilities.max(axis=1).mean(), rel=1e-5)
        assert metrics["loss"] == pytest.approx(((probabilities - wanted) ** 2).sum(axis=1).mean(), rel=1e-5)


def test_the_same_command_finds_nothing_to_do(study, capsys):
    command, folder = study
    before = {name: (run / "records.jsonl").stat().st_mtime_ns for name, run in runs(folder / command).items()}
    assert launch.main(words(command, folder)) == 0
    captured = capsys.readouterr()
    assert "2 runs, 2 finished" in captured.err
    assert "started" not in captured.err
    assert before == {name: (run / "records.jsonl").stat().st_mtime_ns for name, run in runs(folder / command).items()}


def test_report_writes_its_page(study, tmp_path, monkeypatch):
    command, folder = study
    monkeypatch.setattr(report, "write_report", WRITE_REPORT)
    assert launch.main(["report", str(folder / command), "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.md").read_text().replace("\\", "")
    expected = {"compare": FUNCTIONS.values(), "sweep": ("plan.learning_rate", "0.001", "0.02")}[command]
    assert [text for text in expected if text not in page] == []


def test_a_study_is_not_continued_with_a_file_that_has_changed(study, capsys):
    command, folder = study
    (folder / "mine.py").write_text(OWN.replace("beta=0.8", "beta=0.7"))
    try:
        message = fails(capsys, *words(command, folder))
    finally:
        (folder / "mine.py").write_text(OWN)
    assert re.search(r"holds another (experiment|comparison) \(", message)
    assert "optimizer.name: 'heavy_ball (" in message


def test_a_study_without_finished_runs_is_not_continued_either(study, capsys, tmp_path):
    command, folder = study
    name = {"compare": "comparison.json", "sweep": "sweep.json"}[command]
    (tmp_path / command).mkdir()
    (tmp_path / command / name).write_bytes((folder / command / name).read_bytes())
    (tmp_path / "mine.py").write_text(OWN.replace("beta=0.8", "beta=0.7"))
    assert "optimizer.name: 'heavy_ball (" in fails(capsys, *words(command, tmp_path))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_function_that_does_not_fit_is_refused_before_any_run(command, prepared_digits, capsys, tmp_path):
    (tmp_path / "mine.py").write_text(OWN.replace("** 2).sum(axis=1)", "** 2).sum()"))
    message = fails(capsys, *words(command, tmp_path))
    assert message.startswith("error: the loss squared returns float32[] for logits float32[2,10]: it must return one")
    assert not (tmp_path / command).exists()
