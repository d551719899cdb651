"""The controls: what each holds equal to the staged run, by closed forms and by counting examples one by one."""

import importlib
import math
from pathlib import Path

import pytest

from stepwise_jax import datasets, stages
from stepwise_jax.config import OptimizerConfig, PlanConfig, StrategyName
from stepwise_jax.controls import CONTROLS
from stepwise_jax.stages import Stage, learning_rate_at

M = 50_000


def plan(strategy: StrategyName, examples: int = M, **fields) -> tuple[Stage, ...]:
    return stages.make_plan(PlanConfig(strategy=strategy, **fields), OptimizerConfig(), examples)


def samples(made: tuple[Stage, ...]) -> int:
    return sum(stage.samples for stage in made)


@pytest.mark.parametrize("name", ["equal_samples", "equal_samples_rate_curve", "cosine", "batch_only", "batch_growth"])
def test_it_costs_as_many_samples_as_the_staged_run(name):
    assert samples(plan(name)) == samples(plan("stepwise")) == 60 * M
    assert {stage.examples for stage in plan(name)} == {M}


def test_equal_samples_drops_its_rate_where_the_baseline_does():
    (only,) = plan("equal_samples")
    assert (only.epochs, only.batch_size, only.learning_rate) == (60, 24, 0.001)
    # The baseline's 30, 60, 90 of 100 epochs.
    assert only.milestones == (18, 36, 54)


def test_equal_updates_is_as_near_as_whole_epochs_come():
    (only,), staged = plan("equal_updates"), plan("stepwise")
    assert abs(only.updates - sum(stage.updates for stage in staged)) <= only.updates_per_epoch / 2


def staged_rates(made: tuple[Stage, ...]) -> list[float]:
    """The staged run's rate at every example that it feeds, one after the other."""
    return [
        learning_rate_at(stage, epoch)
        for stage in made
        for epoch in range(1, stage.epochs + 1)
        for _ in range(stage.examples)
    ]


def test_the_rate_curve_is_the_staged_runs_after_the_same_share_of_the_samples():
    rates = staged_rates(plan("stepwise", 1000))
    (only,) = plan("equal_samples_rate_curve", 1000)
    assert only.epochs == 60
    for epoch in range(1, 61):
        assert set(rates[(epoch - 1) * 1000 : epoch * 1000]) == {learning_rate_at(only, epoch)}


def test_where_an_epoch_spans_several_rates_it_takes_their_mean():
    fields = {"epochs_per_stage": 3, "decay_every": 2}
    rates = staged_rates(plan("stepwise", 1000, **fields))
    (only,) = plan("equal_samples_rate_curve", 1000, **fields)
    assert only.epochs == 9
    for epoch in range(1, 10):
        spanned = rates[(epoch - 1) * 1000 : epoch * 1000]
        assert learning_rate_at(only, epoch) == pytest.approx(sum(spanned) / len(spanned))


def test_cosine_falls_from_lambda_to_nothing():
    (only,) = plan("cosine")
    wanted = [0.001 * math.cos(math.pi * (epoch + 0.5) / 120) ** 2 for epoch in range(60)]
    assert [learning_rate_at(only, epoch) for epoch in range(1, 61)] == pytest.approx(wanted)


def test_the_batch_grows_where_the_rate_would_drop():
    grown, (whole,) = plan("batch_growth"), plan("equal_samples")
    assert [stage.batch_size for stage in grown] == [24, 240, 2400, 5000]
    assert [stage.epochs for stage in grown] == [18, 18, 18, 6]
    # Smith et al.: rate over batch is what a decay of the rate alone would have left of it.
    for drops, stage in enumerate(grown):
        wanted = learning_rate_at(whole, (0, *whole.milestones)[drops] + 1) / 24
        assert stage.learning_rate / stage.batch_size == pytest.approx(wanted)


def test_one_thing_grows_at_a_time():
    staged, data, batch, rate = (plan(name) for name in ("stepwise", "data_only", "batch_only", "constant_rate"))
    assert [stage.examples for stage in data] == [stage.examples for stage in staged]
    assert {(stage.batch_size, stage.learning_rate) for stage in data} == {(24, 0.001)}
    assert [stage.batch_size for stage in batch] == [stage.batch_size for stage in staged]
    assert [stage.samples for stage in batch] == [stage.samples for stage in staged]
    assert {stage.learning_rate for stage in batch} == {0.001}
    assert [(stage.examples, stage.batch_size) for stage in rate] == [(s.examples, s.batch_size) for s in staged]
    assert rate == plan("stepwise", learning_rate_rule="constant")
    assert plan("last_stage") == staged[-1:]


def own_rule(_: PlanConfig, examples: int) -> tuple[Stage, ...]:
    return (
        Stage("half", 0.5, examples // 2, 10, 0.2, epochs=4),
        Stage("all", 1.0, examples, 20, 0.1, epochs=1),
    )


@pytest.mark.parametrize("name", CONTROLS)
def test_a_rule_of_ones_own_is_the_measure(name):
    made = plan(name, 1000, staged=own_rule, batch_size=10, learning_rate=0.2)
    if name in ("equal_samples", "equal_samples_rate_curve", "cosine", "batch_only", "batch_growth", "constant_rate"):
        assert samples(made) == samples(own_rule(PlanConfig(), 1000))
    if name == "equal_samples_rate_curve":
        assert made[0].epoch_rates == (0.2, 0.2, 0.1)


ODD = [
    {"epochs_per_stage": 1, "decay_every": 1, "baseline_epochs": 1},
    {"fractions": (0.3, 1.0), "batch_multipliers": (1.0, 2.0), "epochs_per_stage": 1},
    {"fractions": (1.0,), "batch_multipliers": (1.0,), "baseline_epochs": 7},
    {"decay_factor": 1.0},
]


@pytest.mark.parametrize("fields", ODD)
@pytest.mark.parametrize("examples", [997, 1437])
@pytest.mark.parametrize("name", CONTROLS)
def test_odd_plans_stay_plans(name, examples, fields):
    made = plan(name, examples, batch_size=8, **fields)
    assert all(stage.epochs >= 1 and stage.updates >= 1 for stage in made)


CONFIGS = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("[a-z]*.py"))


@pytest.mark.parametrize("config", [name for name in CONFIGS if not name.startswith("figure1")])
def test_every_control_fits_every_shipped_plan(config):
    experiment = importlib.import_module(f"configs.{config}").get_config()
    shipped = experiment.data.name != "image_folder"
    examples = datasets.sizes(experiment.data).train if shipped else 5000
    staged = stages.make_plan(experiment.plan, experiment.optimizer, examples)
    for name in CONTROLS:
        made = stages.make_plan(
            PlanConfig(**{**vars(experiment.plan), "strategy": name}), experiment.optimizer, examples
        )
        if name == "equal_samples":
            assert abs(samples(made) - samples(staged)) <= examples / 2
