"""`plan`: its table, its document, and the sentences about fields that are wrong."""

import json
import os
import subprocess
import sys
from functools import partial

import pytest

import launch
from tests.cli.command_line import CIFAR100, DIGITS, ROOT, fails
from tests.own_configuration import OWN

pytestmark = pytest.mark.usefixtures("prepared_digits")


@pytest.mark.parametrize("config", [DIGITS, CIFAR100])
def test_plan_json_is_the_papers_plan(capsys, monkeypatch, tmp_path, config):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing here"))
    assert launch.main(["plan", config, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    examples = 1437 if config == DIGITS else 50_000
    stages = document["stages"]
    assert [stage["name"] for stage in stages] == ["A", "B", "C", "D", "O"]
    assert [stage["examples"] for stage in stages] == [round(f * examples) for f in (0.2, 0.4, 0.6, 0.8, 1.0)]
    b, rate = stages[0]["batch_size"], stages[0]["learning_rate"]
    assert [stage["batch_size"] for stage in stages] == [b, 2 * b, 3 * b, 4 * b, b]
    assert [stage["learning_rate"] for stage in stages] == pytest.approx([rate, *[rate / 50] * 3, rate])
    assert all(stage["milestones"] == [stage["epochs"] // 2] for stage in stages)
    assert document["relative_samples"] == pytest.approx(0.6, abs=1e-3)
    assert document["relative_updates"] == pytest.approx(0.36, abs=0.01)
    keys = {"updates_per_epoch", "updates", "samples", "noise_scale", "noise_scale_exact", "fraction", "epochs"}
    assert all(keys <= stage.keys() for stage in stages + document["baseline"]["stages"])


def test_plan_prints_the_table_and_the_cost(capsys):
    assert launch.main(["plan", CIFAR100]) == 0
    out = capsys.readouterr().out
    for text in ("10,000", "2e-05", "3,000,000", "5,000,000", "74,940", "208,300", "60.0 %", "36.0 %"):
        assert text in out


def test_help_of_a_config_shows_its_values(capsys):
    assert launch.main(["plan", DIGITS, "--help"]) == 0
    assert "(default: resnet_small)" in capsys.readouterr().out


def test_a_field_is_replaced_by_its_dotted_name(capsys):
    words = [
        "plan",
        DIGITS,
        "--json",
        "--plan.batch_size",
        "8",
        "--plan.fractions",
        "0.5",
        "1",
        "--plan.batch-multipliers",
    ]
    assert launch.main([*words, "1", "2"]) == 0
    assert [stage["batch_size"] for stage in json.loads(capsys.readouterr().out)["stages"]] == [8, 16]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan.batchsize", "8"], "did you mean --plan.batch_size"),
        (["--batch_size", "8"], "did you mean --plan.batch_size or --evaluation.batch_size"),
        (["--plan.batch_size", "eight"], "--plan.batch_size is 'eight': it must be a whole number"),
        (["--plan.batch_size=8.5"], "--plan.batch_size is '8.5': it must be a whole number"),
        (["--plan.fractions", "0.4", "0.2", "1"], "each above the one before"),
        (["--plan.fractions", "0.2", "0.4"], "end with 1"),
        (["--plan.milestones", "3", "10"], "plan.milestones is (3, 10): it must be below plan.epochs_per_stage, 10"),
        (["--plan.learning_rate_rule", "eq10"], "it must be one of 'eq9'"),
        (["--plan.strategy", "magic"], "the strategies are stepwise, baseline, single_set"),
        (["--plan.batch_size", "500"], "batch_size of stage 1 (A) is 500: it must be at most 287"),
        (["--data.name", "digitz"], "digits"),
        (["--data.name", "image_folder"], "data.root"),
        (["--data.name", "image_folder", "--data.root", "/no/such/folder"], "/no/such/folder"),
        (["--seed", "-1"], "between 0 and 4294967295"),
        (["stray"], "stray"),
        (["--data.augmentation", "flip", "cutmax"], "data.augmentation is 'cutmax': it must be one of flip, crop"),
        (["--data.augmentation", "crop:x"], "data.augmentation is 'crop:x': padding is 'x': it must be a whole number"),
        (
            ["--evaluation.metrics", "calibration"],
            "evaluation.metrics is 'calibration': it must be one of calibration_",
        ),
        (["--optimizer.b2", "0.95"], "optimizer.b2 is 0.95: sgd does not take it"),
        (["--model.name", "resnet51"], "'resnet51' is no known network"),
        (["--plan.image_sizes", "1", "16", "16", "16", "16"], "image_size of stage 1 (A) is 1: "),
    ],
)
def test_bad_fields_get_one_sentence(capsys, words, message):
    assert message in fails(capsys, "plan", DIGITS, *words)


def test_fields_that_the_paper_does_not_have_are_columns_where_a_stage_sets_them(capsys):
    assert launch.main(["plan", DIGITS]) == 0
    plain = capsys.readouterr().out
    assert not any(word in plain for word in ("image", "micro-", "draw", "warm-up", "optimizer"))
    words = ["--plan.image_sizes", "8", "8", "12", "16", "16", "--plan.microbatches", "1", "1", "1", "4", "1"]
    assert launch.main(["plan", DIGITS, *words, "--plan.draw", "redrawn", "--plan.warmup_epochs", "2"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = {row[0]: row for row in rows if row and row[0] in "ABCDO"}
    assert rows[1][-3:] == ["image", "micro-", "warm-up"]
    assert [table[name][-4:] for name in "ABCDO"] == [
        [size, parts, "redrawn", "2"] for size, parts in zip(("8", "8", "12", "16", "16"), "11141", strict=True)
    ]


def test_hyperparameters_of_a_stage_are_a_column(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import dataclasses\nimport stepwise_jax as sj\nfrom stepwise_jax.plans.strategies import stepwise\n\n"
        "def mine(plan, examples):\n"
        "    first, *others = stepwise(plan, examples)\n"
        "    return (dataclasses.replace(first, hyperparameters={'momentum': 0.5, 'clip_norm': 2.0}), *others)\n\n"
        "def get_config():\n"
        "    optimizer = sj.OptimizerConfig(clip_norm=1.0)\n"
        "    return sj.ExperimentConfig(plan=sj.PlanConfig(strategy=mine), optimizer=optimizer)\n"
    )
    assert launch.main(["plan", str(tmp_path / "mine.py")]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[2].endswith("optimizer")
    assert [line[-1] for line in lines if line[:2] in ("B ", "C ", "D ", "O ")] == ["–"] * 4
    assert next(line for line in lines if line.startswith("A ")).endswith(" momentum 0.5, clip_norm 2")


def test_own_functions_are_checked_without_starting_a_device(tmp_path):
    """A plan is made beside a run that has the whole memory of a GPU, or on a machine without the TPU of the run."""
    (tmp_path / "mine.py").write_text(OWN)
    words = [sys.executable, "launch.py", "plan", str(tmp_path / "mine.py"), "--plan.image_sizes"]
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_platform"}
    run = partial(subprocess.run, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    same, other = (run([*words, size, "8"]) for size in ("8", "4"))
    assert same.returncode == 0, same.stderr
    assert other.returncode == 2
    assert other.stderr.startswith("error: image_size of stage 1 (50%) is 4: Linear does not take such images: ")
