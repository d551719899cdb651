"""`compare` and `sweep` as a user types them, with the smallest network there is, each run a process."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import launch
from stepwise_jax.studies.executors import job_queue
from stepwise_jax.workdir.lock import is_locked

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "digits.py")
TINY = ["--data.image_size", "8", "--model.width", "4", "--model.blocks", "1"]
TINY += ["--data.train_examples", "160", "--plan.epochs_per_stage", "1", "--plan.decay_every", "1"]
TINY += ["--plan.fractions", "0.5", "1", "--plan.batch_multipliers", "1", "1", "--plan.batch_size", "16"]
TINY += ["--plan.baseline_epochs", "1", "--evaluation.batch_size", "180"]


@pytest.fixture(autouse=True)
def prepared_digits(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setattr(job_queue, "POLL_SECONDS", 0.05)


def command(capsys, *words: str) -> str:
    """What the command prints; it must succeed."""
    status, captured = launch.main(words), capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def stamps(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.glob("*/seed*/summary.json")}


def test_compare_trains_pairs_and_resumes(capsys, tmp_path):
    root = tmp_path / "compared"
    words = ["compare", DIGITS, "--workdir", str(root), "--strategies", "stepwise,baseline", "--seeds", "2"]
    output = command(capsys, *words, "--processes", "1", *TINY)
    assert "stepwise" in output
    assert "2 paired seeds" in output
    first = stamps(root)
    assert sorted(first) == [f"{name}/seed{seed}/summary.json" for name in ("baseline", "stepwise") for seed in (0, 1)]
    states = {name: json.loads((root / name).read_text())["state_sha256"] for name in first}
    assert len(set(states.values())) == 4
    configs = [json.loads((root / name).with_name("config.json").read_text())["experiment"] for name in sorted(first)]
    assert [(each["plan"]["strategy"], each["seed"]) for each in configs] == [
        ("baseline", 0),
        ("baseline", 1),
        ("stepwise", 0),
        ("stepwise", 1),
    ]

    shutil.rmtree(root / "baseline" / "seed1")
    again = command(capsys, *words, "--processes", "1", *TINY)
    second = stamps(root)
    assert {name for name in second if second[name] != first[name]} == {"baseline/seed1/summary.json"}
    assert (
        json.loads((root / "baseline/seed1/summary.json").read_text())["state_sha256"]
        == (states["baseline/seed1/summary.json"])
    )
    # All but the time, which is the last column, is the same.
    assert again.splitlines()[-1] == output.splitlines()[-1]


def test_runs_of_a_compare_that_is_killed_save_and_stop(capsys, tmp_path):
    root = tmp_path / "compared"
    words = ["compare", DIGITS, "--workdir", str(root), "--strategies", "stepwise,baseline", "--seeds", "1"]
    words += ["--processes", "2", *TINY, "--plan.epochs_per_stage", "150", "--plan.baseline_epochs", "150"]
    words += ["--plan.decay_every", "150", "--plan.baseline_decay_every", "150"]
    folders = [root / name / "seed0" for name in ("stepwise", "baseline")]
    with subprocess.Popen([sys.executable, "launch.py", *words], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: all('"epoch"' in read(folder / "records.jsonl") for folder in folders))
        process.kill()
    wait_until(lambda: not any(is_locked(folder) for folder in folders))
    for folder in folders:
        assert "stopped by SIGTERM after " in read(folder.with_name("seed0.log"))
        assert any((folder / "checkpoints").iterdir())
        assert not (folder / "summary.json").exists()
    assert "stepwise" in command(capsys, *words)
    assert all((folder / "summary.json").exists() for folder in folders)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_sweep_ranks_two_points_on_held_out_images(capsys, tmp_path):
    root = tmp_path / "swept"
    words = ["sweep", DIGITS, "--workdir", str(root), "--grid", "plan.learning_rate=0.02,0.0001", "--processes", "1"]
    output = command(capsys, *words, *TINY, "--plan.strategy", "baseline")
    assert "best of 2 points: plan.learning_rate" in output
    results = json.loads((root / "results.json").read_text())
    assert results["failures"] == []
    best = results["best"]["plan.learning_rate"]
    scores = {}
    for rate in ("0.02", "0.0001"):
        folder = root / f"plan.learning_rate={rate}" / "seed0"
        assert json.loads((folder / "subsets.json").read_text())["test"]["count"] == 144
        scores[rate] = json.loads((folder / "summary.json").read_text())["top1"]
    assert scores[best] == max(scores.values())
    assert [each["top1"] for each in results["points"]] == sorted(scores.values(), reverse=True)
    tested = root / "best" / f"plan.learning_rate={best}" / "seed0"
    assert json.loads((tested / "subsets.json").read_text())["test"]["count"] == 360
    assert results["test"] == json.loads((tested / "summary.json").read_text())


def fails(capsys, *words: str) -> str:
    assert launch.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds is 0: it must be from 1 to 10000"),
        (["--processes", "-1"], "--processes is -1"),
        (["--strategies", "baselin,stepwise"], "try baseline"),
        (["--strategies", "rate_only,equal_samples_rate_curve"], "are the same run here"),
        (["--strategies", "rows"], "has no get_rows()"),
        (["--plan.learning_rate_rule", "constant"], "each of the strategies sets this field itself"),
        (["--plan.batch_size", "500"], "strategy stepwise: batch_size of stage 1"),
        (["--model.name", "resnet51"], "resnet50"),
    ],
)
def test_comparisons_that_cannot_be_made_leave_no_folder(capsys, tmp_path, words, message):
    assert message in fails(capsys, "compare", DIGITS, "--workdir", str(tmp_path / "new"), *words)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --grid or --trials"),
        (["--grid", "plan.batch_size=8", "--trials", "3"], "give either --grid or --trials"),
        (["--grid", "plan.batch_size=8", "--samples", "1000"], "--samples is 1000: it must be omitted with --grid"),
        (["--trials", "-1"], "--trials is -1"),
        (["--grid", "plan.batch_size=8,500"], "point plan.batch_size=500: batch_size of stage 1"),
        (["--grid", "seed=1,2"], "--seeds says"),
        (["--grid", "plan.batch_size=8", "--processes", "-2"], "--processes is -2"),
        (["--grid", "plan.batch_size=8", "--data.train_examples", "1437"], "data.train_examples is 1437"),
    ],
)
def test_sweeps_that_cannot_be_made_leave_no_folder(capsys, tmp_path, words, message):
    assert message in fails(capsys, "sweep", DIGITS, "--workdir", str(tmp_path / "new"), *words)
    assert not (tmp_path / "new").exists()


def test_rows_of_a_configuration(capsys, tmp_path):
    folder = tmp_path / "with:colon"
    folder.mkdir()
    mine = folder / "mine.py"
    mine.write_text(
        "from stepwise_jax.experiment.config import DataConfig, ExperimentConfig, PlanConfig\n"
        "def get_config(): return ExperimentConfig(data=DataConfig(name='digits'))\n"
        "def get_rows(): return {'b=8': ExperimentConfig(data=get_config().data, plan=PlanConfig(batch_size=8))}\n"
    )
    sizes = []
    for config in (str(mine), f"{mine}:b=8"):
        assert launch.main(["plan", config, "--json"]) == 0
        sizes.append(json.loads(capsys.readouterr().out)["stages"][0]["batch_size"])
    assert sizes == [24, 8]
    assert "has no row 'b=9': its rows are b=8" in fails(capsys, "plan", f"{mine}:b=9")
    assert "has no row 'x': it has no get_rows()" in fails(capsys, "plan", f"{DIGITS}:x")
    for rows in ("3", "{'a': 1}", "{1: get_config()}", "{'': get_config()}"):
        mine.write_text(mine.read_text().rpartition("def get_rows")[0] + f"def get_rows(): return {rows}\n")
        assert "returned no dictionary of ExperimentConfigs by name" in fails(capsys, "plan", f"{mine}:b=8")
