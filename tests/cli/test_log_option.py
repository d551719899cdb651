"""`--log`: a run's other loggers, and those of the runs of a comparison or a sweep."""

import sys

import pytest
from conftest import TinyNet

import launch
from stepwise_jax.cli import study_commands
from stepwise_jax.functional import networks
from stepwise_jax.workdir.json_files import read_json
from tests.cli.command_line import DIGITS, fails
from tests.workdir.loggers.made_libraries import install_mlflow, install_trackio, install_wandb

SHORT = ["--data.image_size", "8", "--plan.epochs_per_stage", "1", "--plan.decay_every", "1"]
SHORT += ["--plan.fractions", "0.5", "1", "--plan.batch_multipliers", "1", "1"]


@pytest.fixture(autouse=True)
def prepared_digits(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))


def test_a_run_logs_its_fields_its_epochs_and_its_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "build_network", lambda *_: TinyNet())
    wandb, trackio, mlflow = install_wandb(monkeypatch), install_trackio(monkeypatch), install_mlflow(monkeypatch)
    folder = tmp_path / "compared" / "own" / "seed3"
    words = ["train", DIGITS, "--workdir", str(folder), *SHORT, "--seed", "3", "--log", "wandb,trackio"]
    assert launch.main([*words, "--log", "mlflow", "--log-group", str(tmp_path / "compared")]) == 0
    summary = read_json(folder / "summary.json")
    for run in (*wandb, *trackio):
        assert run.started["group"] == "compared"
        assert run.started["name"].startswith("own/seed3")
        fields = run.started["config"]
        assert (fields["seed"], fields["data.name"], fields["plan.epochs_per_stage"]) == (3, "digits", 1)
        assert run.rows[1][1]["test/top1"] == summary["top1"]
    assert wandb[0].summary["summary/top1"] == summary["top1"]
    assert mlflow.runs[0].data.params["seed"] == "3"
    assert (tmp_path / "compared" / "own" / "seed3" / "tensorboard").is_dir()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--log", "wandb"], "needs wandb: pip install 'stepwise-jax[wandb]'"),
        (["--log", "comet"], "--log is 'comet': it must be wandb or mlflow or trackio"),
    ],
)
@pytest.mark.parametrize("command", ["train", "compare", "sweep"])
def test_a_logger_that_cannot_be_had_leaves_no_folder(capsys, tmp_path, monkeypatch, command, words, message):
    monkeypatch.setitem(sys.modules, "wandb", None)
    more = ["--grid", "plan.batch_size=8,16"] if command == "sweep" else []
    assert message in fails(capsys, command, DIGITS, "--workdir", str(tmp_path / "new"), *more, *words)
    assert not (tmp_path / "new").exists()


def test_a_group_needs_a_logger_and_the_workdir(capsys, tmp_path, monkeypatch):
    install_trackio(monkeypatch)
    words = ["train", DIGITS, "--workdir", str(tmp_path / "new"), "--log-group", str(tmp_path / "other")]
    assert "it must be given with --log" in fails(capsys, *words)
    assert "is not in the study's folder" in fails(capsys, *words, "--log", "trackio")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("command", "more", "names"),
    [
        ("compare", ["--strategies", "stepwise,baseline", "--seeds", "1"], ["stepwise/seed0", "baseline/seed0"]),
        ("sweep", ["--grid", "plan.batch_size=8"], ["plan.batch_size=8/seed0"]),
    ],
)
def test_the_runs_of_a_study_log_as_one_group(capsys, tmp_path, monkeypatch, command, more, names):
    runs, jobs = install_trackio(monkeypatch), []
    install_mlflow(monkeypatch)

    def keep(found, _):
        jobs.extend(found)
        return []

    monkeypatch.setattr(study_commands, "run_unfinished", keep)
    root = tmp_path / "studied"
    launch.main([command, DIGITS, "--workdir", str(root), *more, *SHORT, "--log", "trackio", "--log", "mlflow"])
    capsys.readouterr()
    assert [str(job.folder.relative_to(root)) for job in jobs] == names
    for job in jobs:
        start = job.command.index("--log")
        assert job.command[start : start + 4] == ("--log", "trackio,mlflow", "--log-group", str(root))
        # The command is one that `train` takes.
        monkeypatch.setattr(networks, "build_network", lambda *_: TinyNet())
    assert launch.main(jobs[0].command[2:]) == 0
    assert [(run.started["group"], run.started["name"].split(" ")[0]) for run in runs] == [("studied", names[0])]
