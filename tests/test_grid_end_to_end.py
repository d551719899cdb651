"""compare and sweep from the command line, with real runs of a moment each."""

import json
import shutil

import pytest

import launch

CONFIG = """
import dataclasses
from stepwise_jax.config import *

def get_config():
    return ExperimentConfig(
        data=DataConfig(name="digits", image_size=8, train_examples=160, data_dir={data_dir!r}),
        model=ModelConfig(name="resnet_small", small_images=True, width=4),
        plan=PlanConfig(fractions=(0.5, 1.0), batch_multipliers=(1.0, 1.0), batch_size=16, learning_rate=0.05,
                        epochs_per_stage=1, decay_every=1, baseline_epochs=2, baseline_decay_every=1),
        evaluation=EvaluationConfig(batch_size=120, every_epochs=2),
    )

def get_rows():
    config = get_config()
    plan = dataclasses.replace(config.plan, strategy="baseline", learning_rate=1e30)
    return {{"absurd": dataclasses.replace(config, plan=plan)}}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory, data_dir):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG.format(data_dir=str(data_dir)))
    return str(path)


def test_compare_runs_reports_and_goes_on(config, tmp_path, capsys):
    words = ["compare", config, "--workdir", str(tmp_path / "c"), "--processes", "2", "--plan.decay_factor", "0.5"]
    pair = ["--strategies", "stepwise,baseline"]
    assert launch.main([*words, "--seeds", "1", *pair]) == 0
    told = capsys.readouterr()
    assert "One seed shows no difference" in told.out
    assert "2 runs, 0 finished" in told.err
    assert (tmp_path / "c" / "report" / "report.html").exists()
    first = (tmp_path / "c" / "stepwise" / "seed0" / "summary.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "c" / "baseline" / "seed0")
    # A run that fails is told of, and takes no other with it.
    assert launch.main([*words, "--seeds", "1", "--strategies", "stepwise,baseline,absurd"]) == 1
    told = capsys.readouterr()
    assert "3 runs, 1 finished" in told.err
    assert "absurd, seed 0: FAILED: the loss is" in told.err
    assert "1 of 3 runs failed: absurd, seed 0: the loss is" in told.err
    assert (tmp_path / "c" / "baseline" / "seed0" / "summary.json").exists()
    assert (tmp_path / "c" / "stepwise" / "seed0" / "summary.json").stat().st_mtime_ns == first
    recorded = json.loads((tmp_path / "c" / "baseline" / "seed0" / "config.json").read_text())["experiment"]
    assert (recorded["plan"]["strategy"], recorded["plan"]["decay_factor"]) == ("baseline", 0.5)
    assert json.loads((tmp_path / "c" / "failures.json").read_text())["failures"][0]["status"] == 3


def test_sweep_scores_held_out_images_and_tests_once(config, tmp_path, capsys):
    folder = tmp_path / "s"
    words = ["sweep", config, "--workdir", str(folder), "--grid", "plan.learning_rate=0.05,1e-6", "--processes", "2"]
    assert launch.main([*words, "--plan.strategy", "baseline"]) == 0
    told = capsys.readouterr().out
    assert "best of 2 points: plan.learning_rate" in told
    results = json.loads((folder / "results.json").read_text())
    # A tenth of the 1,437 training images.
    assert all((144 * each["top1"]) == pytest.approx(round(144 * each["top1"])) for each in results["points"])
    assert 360 * results["test"]["top1"] == pytest.approx(round(360 * results["test"]["top1"]))
    assert (folder / "report" / "report.html").exists()
    # Everything is done: nothing runs again.
    assert launch.main([*words, "--plan.strategy", "baseline"]) == 0
    assert "2 runs, 2 finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "--seeds", "0"], "--seeds is 0"),
        (["compare", "--strategies", "stepwise,nothing"], "'nothing' is neither a row of"),
        (["compare", "--processes", "-1"], "--processes is -1"),
        (["compare", "--plan.batch_size", "500"], "strategy stepwise: batch_size of stage 1 (50%)"),
        (["compare", "--model.name", "resnet"], "network: 'resnet' is none of ours"),
        (["sweep"], "--grid and --trials"),
        (["sweep", "--grid", "plan.batch_size=1", "--trials", "3"], "--grid and --trials"),
        (["sweep", "--grid", "plan.batch_size=ten"], "--plan.batch_size is 'ten'"),
        (["sweep", "--trials", "2", "--samples", "3"], "--samples is 3"),
    ],
)
def test_bad_input_is_told_before_anything_runs(config, tmp_path, capsys, words, message):
    assert launch.main([words[0], config, "--workdir", str(tmp_path / "w"), *words[1:]]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "w").exists()
