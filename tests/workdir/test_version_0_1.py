"""Runs of version 0.1 still open, resume, report, predict and export: the folders in `fixtures/version_0_1`.

Version 0.1.0 made them (Python 3.11, jax 0.10.2) from `configs/digits.py` with a network of one block and width 4: two
stages of three epochs, of which `stopped` was stopped after the first epoch of the second.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images

import launch
from stepwise_jax.experiment import serialization
from stepwise_jax.workdir.folder import parse_config, read_config
from stepwise_jax.workdir.record_file import read_records, without_seconds

FIXTURES = Path(__file__).parents[1] / "fixtures" / "version_0_1"
CONFIG = str(Path(__file__).parents[2] / "configs" / "digits.py")
FIELDS = (
    *("--model.width", "4", "--model.blocks", "1", "--data.image_size", "8", "--checkpoint.keep", "2"),
    *("--plan.fractions", "0.5", "1.0", "--plan.batch_multipliers", "2", "1", "--plan.batch_size", "32"),
    *("--plan.epochs_per_stage", "3", "--plan.decay_every", "2", "--plan.learning_rate", "0.05"),
)


@pytest.fixture(autouse=True)
def prepared_digits(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(FIXTURES / "finished", tmp_path / "run"))


def succeed(*words: str | Path) -> None:
    assert launch.main([str(word) for word in words]) == 0


def losses(epochs: Sequence[dict[str, float]]) -> list[float]:
    return [row["train_loss"] for row in epochs]


def test_a_stopped_run_resumes_and_ends_as_the_finished_one_did(tmp_path: Path):
    stopped = Path(shutil.copytree(FIXTURES / "stopped", tmp_path / "run"))
    before, whole = read_records(stopped), read_records(FIXTURES / "finished")
    succeed("train", CONFIG, "--workdir", stopped, *FIELDS)
    after = read_records(stopped)
    assert without_seconds(after.epochs)[: len(before.epochs)] == without_seconds(before.epochs)
    # Another processor may round differently.
    assert losses(after.epochs) == pytest.approx(losses(whole.epochs), rel=0.02)
    assert [event["name"] for event in after.events].count("resume") == 1
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (stopped, FIXTURES / "finished")]
    assert summaries[0].keys() == summaries[1].keys() | {"metrics", "test_images"}
    assert summaries[0]["updates"] == summaries[1]["updates"]


def test_a_number_that_was_recorded_as_null_counts_as_infinite(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Version 0.1 took `--checkpoint.every_seconds inf`, and JSON has no infinity."""
    document = json.loads((run / "config.json").read_text())
    document["experiment"]["checkpoint"]["every_seconds"] = None
    (run / "config.json").write_text(json.dumps(document))
    write_images(tmp_path / "images", 1, seed=0)
    commands = [
        ["evaluate", run],
        ["predict", run, tmp_path / "images"],
        ["export", run, "--out", tmp_path / "x.stablehlo"],
    ]
    for words in [*commands, ["train", CONFIG, "--workdir", run, *FIELDS]]:
        serialization._note_infinity.cache_clear()
        caplog.clear()
        succeed(*words)
        said = [record.getMessage() for record in caplog.records if "null" in record.getMessage()]
        assert said == [
            "the recorded checkpoint.every_seconds is null, which version 0.1 wrote for infinity: it counts as infinite"
        ]
    succeed("report", run, "--out", tmp_path / "report")
    assert parse_config(read_config(run))[0].checkpoint.every_seconds > 1e300


def test_a_finished_run_is_left_as_it_is(run: Path):
    summary = (run / "summary.json").read_bytes()
    succeed("train", CONFIG, "--workdir", run, *FIELDS)
    assert (run / "summary.json").read_bytes() == summary


def test_a_finished_run_is_scored_as_before(run: Path, capsys: pytest.CaptureFixture[str]):
    succeed("evaluate", run, "--json")
    recorded = json.loads((run / "summary.json").read_text())
    assert json.loads(capsys.readouterr().out)["top1"] == pytest.approx(recorded["top1"], abs=1 / 360)


def test_a_finished_run_predicts_what_it_recorded(run: Path, tmp_path: Path):
    succeed("train", CONFIG, "--workdir", run, *FIELDS)
    (run / "predictions.npz").rename(tmp_path / "before.npz")
    (run / "summary.json").unlink()
    succeed("train", CONFIG, "--workdir", run, *FIELDS)
    with np.load(tmp_path / "before.npz") as before, np.load(run / "predictions.npz") as after:
        assert before["ids"].tolist() == after["ids"].tolist()
        np.testing.assert_allclose(after["probabilities"], before["probabilities"], atol=1e-4)


def test_a_finished_run_reports_predicts_and_exports(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_images(tmp_path / "images", 1, seed=0)
    succeed("report", run, "--out", tmp_path / "report")
    assert (tmp_path / "report" / "report.html").is_file()
    capsys.readouterr()
    succeed("predict", run, tmp_path / "images", "--json")
    assert len(json.loads(capsys.readouterr().out)) == 3
    succeed("export", run, "--out", tmp_path / "network.safetensors")
    succeed("export", run, "--out", tmp_path / "network.stablehlo")
