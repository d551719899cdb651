"""Which predictor orders the losses: predictors of a run, Kendall's tau over arms, and when it is decided."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.studies.statistics import predictors
from stepwise_jax.studies.statistics.predictors import Agreement, agreements, conclude, has_measurements, predict
from stepwise_jax.workdir.record_file import RunRecords
from stepwise_jax.workdir.runs import Run, read_runs

NOISE = {"learning_rate": 0.1, "statistics": "batch", "side": "end"}


def epoch(stage: int, updates: int, rate: float, size: int, scale: float, **losses: float) -> dict[str, Any]:
    fields = {"stage": stage, "updates": updates, "learning_rate": rate, "batch_size": size, "noise_scale": scale}
    return {**fields, "train_loss": 1.0, "test_loss": 2.0, **losses}


def run_of(epochs: list[dict[str, Any]], traces: dict[int, float | None]) -> Run:
    noise = tuple({**NOISE, "stage": stage, "trace": trace} for stage, trace in traces.items())
    return Run("run", {"stages": []}, RunRecords((), tuple(epochs), (), noise), None, Path())


def arm(scale: float, ratio: float, trace: float, loss: float) -> Run:
    """A run of one epoch of ten updates with these predictors."""
    return run_of([epoch(1, 10, 10 * ratio, 10, scale, test_loss=loss, train_loss=-loss)], {1: trace / ratio})


def test_predictors_are_means_over_the_updates_weighted_by_their_rates():
    epochs = [epoch(1, 10, 0.4, 20, 8.0), epoch(1, 20, 0.1, 20, 2.0), epoch(2, 40, 0.1, 10, 5.0, test_loss=3.0)]
    found = predict(run_of(epochs, {1: 6.0, 2: 30.0}))
    # Weights of 4, 1 and 2.
    assert found.rate_sum == pytest.approx(7.0)
    assert found.predictors["noise_scale"] == pytest.approx((4 * 8 + 2 + 2 * 5) / 7)
    assert found.predictors["rate_over_batch"] == pytest.approx((4 * 0.02 + 0.005 + 2 * 0.01) / 7)
    assert found.predictors["step_noise"] == pytest.approx((4 * 0.02 * 6 + 0.005 * 6 + 2 * 0.01 * 30) / 7)
    assert found.losses == {"test_loss": 3.0, "train_loss": 1.0}


@pytest.mark.parametrize("traces", [{1: 6.0}, {1: 6.0, 2: None}])
def test_a_stage_without_a_measurement_leaves_no_measured_predictor(traces):
    epochs = [epoch(1, 10, 0.4, 20, 8.0), epoch(2, 40, 0.1, 10, 5.0)]
    assert predict(run_of(epochs, traces)).predictors["step_noise"] is None


def test_tau_is_that_of_the_order_of_the_arms_with_ties():
    # lambda M / b ties two arms, lambda / b puts all in the order of the loss, the measurement in the reverse one.
    arms = [arm(1.0, 0.01, 0.4, 1.0), arm(4.0, 0.02, 0.3, 1.5), arm(4.0, 0.03, 0.2, 2.0), arm(8.0, 0.04, 0.1, 3.0)]
    found = {
        (each.predictor, each.loss): each.by_seed for each in agreements({str(i): {7: a} for i, a in enumerate(arms)})
    }
    # Five of six pairs agree, one is tied: 5 / sqrt(5 * 6).
    assert found["noise_scale", "test_loss"][7] == pytest.approx(5 / math.sqrt(30))
    assert found["rate_over_batch", "test_loss"] == {7: pytest.approx(1.0)}
    assert found["step_noise", "test_loss"] == {7: pytest.approx(-1.0)}
    assert found["rate_over_batch", "train_loss"] == {7: pytest.approx(-1.0)}


def test_only_seeds_that_all_arms_have_count_and_equal_predictors_have_no_tau():
    arms = {str(i): {0: arm(1.0, 0.01, 0.1 * i + 0.1, i), 1: arm(1.0, 0.01, 0.1, i)} for i in range(3)}
    del arms["2"][1]
    found = {each.predictor: each.by_seed for each in agreements(arms) if each.loss == "test_loss"}
    assert found == {"noise_scale": {}, "rate_over_batch": {}, "step_noise": {0: pytest.approx(1.0)}}


def taus(predictor: str, *values: float) -> Agreement:
    return Agreement(predictor, "test_loss", dict(enumerate(values)))


def test_a_lead_that_all_seeds_share_decides():
    found = [taus("noise_scale", 0.1, 0.0, -0.1), taus("rate_over_batch", -0.8, -0.9, -1.0)]
    text = conclude(found, "test_loss")
    assert text.startswith("λ/b (mean τ −0.90) orders the test loss best; its |τ| is ahead of that of λM/b (Eq. 10) by")
    assert text.endswith("over 3 seeds.")


@pytest.mark.parametrize(
    "found",
    [
        [taus("noise_scale", 0.9, 0.2, 0.5), taus("rate_over_batch", 0.3, 0.8, 0.6)],
        [taus("noise_scale", 0.9, 0.8), taus("rate_over_batch", 0.1, 0.1)],
        [taus("noise_scale", 0.9, -0.8, 0.3), taus("rate_over_batch", 0.1, -0.1, 0.0)],
    ],
)
def test_seeds_that_disagree_or_are_too_few_decide_nothing(found):
    assert conclude(found, "test_loss").startswith(
        "It is not decided which predictor orders the test loss best: the near"
    )


def test_without_a_finished_seed_nothing_is_said_to_order():
    assert (
        conclude([taus("noise_scale")], "test_loss")
        == "No seed has finished in all arms: nothing orders the test loss yet."
    )


def test_runs_that_measured_nothing_have_no_conclusion(tmp_path):
    runs = read_runs([make_run(tmp_path / str(i), PlanConfig(epochs_per_stage=1, decay_every=1)) for i in range(3)])
    arms = {run.name: {0: run} for run in runs}
    assert not has_measurements(arms)
    measured = dataclasses.replace(runs[0], records=dataclasses.replace(runs[0].records, noise=({},)))
    assert has_measurements({**arms, runs[0].name: {0: measured}})
    assert not has_measurements({"a": {0: measured}, "b": {0: runs[1]}, "c": {}})
    assert predictors.predict(runs[1]).predictors["noise_scale"] is not None
