"""A sweep from its grid to its results, with a made-up score in place of training."""

import io
import json

import pytest

from stepwise_jax.cli.study_tables import print_results
from stepwise_jax.errors import StepwiseError
from stepwise_jax.studies import sweep_run
from stepwise_jax.studies.sweep import (
    BEST_FOLDER,
    RESULTS_FILE,
    figure1_points,
    parse_grid,
)
from tests.studies.example_sweep import EXPERIMENT, Trainer, make_sweep

GRID = ["plan.batch_size=24,48", "plan.learning_rate=0.1,0.003"]


def test_a_grid_is_ranked_and_its_best_tested_once(tmp_path):
    sweep, train = make_sweep(tmp_path), Trainer(fails=["batch_size=24,plan.learning_rate=0.1"])
    results = sweep_run.run_grid(sweep, parse_grid(EXPERIMENT, GRID), train)
    assert results["best"] == {"plan.batch_size": "48", "plan.learning_rate": "0.003"}
    assert [each["top1"] for each in results["points"]] == sorted((e["top1"] for e in results["points"]), reverse=True)
    assert len(results["points"]) == 3
    assert [each["message"] for each in results["failures"]] == ["the loss is not finite"]
    assert len([name for name in train.trained if name.startswith(BEST_FOLDER)]) == 1
    assert json.loads((tmp_path / RESULTS_FILE).read_text()) == results
    again = Trainer()
    assert not sweep_run.run_grid(sweep, parse_grid(EXPERIMENT, GRID), again)["failures"]
    assert again.trained == ["plan.batch_size=24,plan.learning_rate=0.1, seed 0"]


def test_no_score_at_all_is_reported(tmp_path):
    with pytest.raises(StepwiseError, match=r"no point of the sweep could be scored: .*the loss is not finite"):
        sweep_run.run_grid(make_sweep(tmp_path), parse_grid(EXPERIMENT, GRID), Trainer(fails=["seed"]))


def test_results_are_shown_with_every_field_that_varies(tmp_path):
    stream = io.StringIO()
    train = Trainer(fails=["plan.batch_size=96", BEST_FOLDER])
    results = sweep_run.run_grid(make_sweep(tmp_path), figure1_points(EXPERIMENT), train)
    print_results(results, stream)
    output = stream.getvalue()
    for text in (
        "fractions",
        "batch_size",
        "learning_rate",
        "held-out top-1",
        "best of 11 points",
        "its test run failed",
    ):
        assert text in output
    assert "FAILED: plan.strategy=single_set" in output
