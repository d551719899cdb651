"""Compares the controls with closed forms, and with an enumeration of the examples of the staged run."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest

from stepwise_jax.cli.parsing.overrides import parse_fields
from stepwise_jax.data import datasets
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.config_files import load_config
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.registry import STRATEGIES
from stepwise_jax.plans.stage import Stage, learning_rate_at, stage_from_dict, stage_to_dict
from stepwise_jax.plans.strategies import stepwise

M = 50_000
CONTROLS = [name for name, each in STRATEGIES.items() if each.function.__module__ == "stepwise_jax.plans.controls"]
CONFIGS = sorted(path for path in (Path(__file__).parents[2] / "configs").glob("*.py") if path.name[0] != "_")


def plan(strategy: str, examples: int = M, **fields) -> tuple[Stage, ...]:
    return make_plan(PlanConfig(strategy=strategy, **fields), examples)  # pyright: ignore


def two_stages(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """A user-defined strategy: two stages, the first with a learning rate for each epoch."""
    half = examples // 2
    first = Stage("half", 0.5, half, 10, 0.3, epochs=3, epoch_rates=(0.3, 0.2, 0.1))
    return first, Stage("all", 1.0, examples, 20, 0.05, epochs=2, milestones=(1,))


def samples(planned: tuple[Stage, ...]) -> int:
    return sum(stage.samples for stage in planned)


def updates(planned: tuple[Stage, ...]) -> int:
    return sum(stage.updates for stage in planned)


def sampled_rates(staged: tuple[Stage, ...], step: int) -> list[float]:
    """The staged run's learning rate at each `step`-th of its samples."""
    rates: list[float] = []
    for stage in staged:
        for epoch in range(1, stage.epochs + 1):
            rates += [learning_rate_at(stage, epoch)] * (stage.examples // step)
    return rates


def test_equal_samples_cost_exactly_the_staged_samples():
    (stage,) = plan("equal_samples")
    assert (stage.name, stage.examples, stage.batch_size, stage.learning_rate) == ("O", M, 24, 0.001)
    assert (stage.epochs, stage.samples) == (60, samples(plan("stepwise")))
    # The baseline drops after 30, 60 and 90 of 100 epochs.
    assert stage.milestones == (18, 36, 54)


def test_equal_updates_is_within_half_an_epoch():
    (stage,) = plan("equal_updates")
    assert abs(stage.updates - updates(plan("stepwise"))) <= stage.updates_per_epoch / 2
    assert stage.epochs == 36
    assert stage.milestones == (11, 22, 32)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"learning_rate_rule": "eq9_base_batch"},
        {"epochs_per_stage": 1},
        {"epochs_per_stage": 7, "decay_every": 3},
        {"fractions": (0.2, 1.0), "batch_multipliers": (1, 2)},
        {"staged": two_stages},
    ],
)
def test_the_rate_curve_follows_the_staged_run_by_share_of_samples(fields):
    staged = plan("stepwise", **fields) if "staged" not in fields else two_stages(PlanConfig(), M)
    (stage,) = plan("equal_samples_rate_curve", **fields)
    rates = sampled_rates(staged, step=10)
    edges = [round(epoch * len(rates) / stage.epochs) for epoch in range(stage.epochs + 1)]
    means = [sum(rates[i:j]) / (j - i) for i, j in itertools.pairwise(edges)]
    assert stage.epoch_rates == pytest.approx(means, rel=1e-3)
    assert stage.learning_rate == stage.epoch_rates[0]  # pyright: ignore


def test_under_the_papers_plan_the_curve_equals_the_staged_runs_rates():
    (stage,) = plan("equal_samples_rate_curve")
    rates = sampled_rates(plan("stepwise"), step=10_000)[::5]
    assert stage.epoch_rates == tuple(rates)
    assert (stage.epochs, stage.milestones, stage.batch_size) == (60, (), 24)


def test_cosine_follows_its_closed_form():
    (stage,) = plan("cosine", learning_rate=0.4)
    assert stage.samples == samples(plan("stepwise"))
    expected = [0.4 * math.cos(math.pi * (epoch - 0.5) / 120) ** 2 for epoch in range(1, 61)]
    assert stage.epoch_rates == pytest.approx(expected)
    assert [learning_rate_at(stage, epoch) for epoch in range(1, 61)] == list(stage.epoch_rates or ())


def test_batch_only_trains_on_all_data_for_the_same_samples():
    staged, grown = plan("stepwise"), plan("batch_only")
    assert [stage.samples for stage in grown] == [stage.samples for stage in staged]
    assert [stage.batch_size for stage in grown] == [stage.batch_size for stage in staged]
    assert {(stage.name, stage.fraction, stage.examples, stage.learning_rate) for stage in grown} == {
        ("O", 1.0, M, 0.001)
    }
    assert [stage.milestones for stage in grown] == [(2,), (4,), (6,), (8,), (10,)]


def test_batch_only_leaves_out_stages_below_half_an_epoch():
    grown = plan("batch_only", epochs_per_stage=1)
    # 0.2, 0.6, 1.2, 2 and 3 epochs of O have passed at the ends of the stages.
    assert [(stage.batch_size, stage.epochs) for stage in grown] == [(48, 1), (96, 1), (24, 1)]


def test_constant_rate_data_only_and_last_stage_change_one_thing():
    staged = plan("stepwise")
    assert plan("constant_rate") == plan("stepwise", learning_rate_rule="constant")
    assert plan("data_only") == plan("stepwise", learning_rate_rule="constant", batch_multipliers=(1,) * 5)
    assert plan("last_stage") == staged[-1:]


def test_controls_of_a_user_defined_strategy():
    fields = {"staged": two_stages, "batch_size": 8, "learning_rate": 0.1}
    cost = samples(two_stages(PlanConfig(), 1000))
    assert cost == 3500
    assert [stage.epochs for stage in plan("equal_samples", 1000, **fields)] == [4]  # 3.5 rounds to even
    # 150 and 100 updates against 125 an epoch.
    assert [stage.epochs for stage in plan("equal_updates", 1000, **fields)] == [2]
    assert [(stage.batch_size, stage.learning_rate) for stage in plan("constant_rate", 1000, **fields)] == [
        (10, 0.1),
        (20, 0.1),
    ]
    assert {learning_rate_at(plan("constant_rate", 1000, **fields)[0], epoch) for epoch in (1, 2, 3)} == {0.1}
    assert {stage.batch_size for stage in plan("data_only", 1000, **fields)} == {8}
    assert plan("last_stage", 1000, **fields)[0].name == "all"
    assert samples(plan("batch_only", 1000, **fields)) == 4000


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("examples", [97, 2509, 75_750])
@pytest.mark.parametrize(
    "fields",
    [
        {"epochs_per_stage": 1, "decay_every": 1, "baseline_epochs": 1},
        {"fractions": (0.3, 1.0), "batch_multipliers": (1, 2), "epochs_per_stage": 3},
        {"fractions": (1.0,), "batch_multipliers": (1,), "milestones": (3, 4)},
        {"decay_factor": 0.3, "baseline_decay_every": 7},
        {"decay_factor": 1.0},
        {"staged": two_stages},
    ],
)
def test_unusual_plans_are_valid(name, examples, fields):
    fields = {"batch_size": 4, **fields}
    made = plan(name, examples, **fields)
    if name.startswith("equal_samples") or name == "cosine":
        staged = fields.get("staged", stepwise)
        cost = samples(staged(PlanConfig(**fields), examples))
        assert abs(samples(made) - cost) <= examples / 2 or samples(made) == examples


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_control_of_every_shipped_experiment_is_valid(path, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    experiment = load_config(str(path))
    folder = experiment.data.name == "image_folder"
    examples = (experiment.data.train_examples or M) if folder else datasets.sizes(experiment.data).train
    for name in CONTROLS:
        config = dataclasses.replace(experiment.plan, strategy=name)
        made = make_plan(config, examples, experiment.optimizer)
        assert made[-1].examples == examples


def test_a_control_of_a_failing_strategy_is_reported_in_one_sentence():
    def broken(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
        raise KeyError("nothing")

    with pytest.raises(InputError, match="equal_samples") as caught:
        plan("equal_samples", staged=broken)
    assert "KeyError" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch_rates": (0.1,)}, "epoch_rates of stage 1"),
        ({"epoch_rates": (0.1, 0.0)}, "2 positive numbers, one for each epoch"),
        ({"epoch_rates": (0.1, float("inf"))}, "2 positive numbers"),
        ({"epoch_rates": 0.1}, "a tuple"),
        ({"epoch_rates": (0.1, 0.1), "milestones": (1,)}, "empty if epoch_rates"),
        ({"epoch_rates": (0.2, 0.1)}, "equal to the first of epoch_rates"),
    ],
)
def test_rates_by_epoch_are_checked(changes, message):
    def rule(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
        return (dataclasses.replace(Stage("s", 1.0, examples, 10, 0.1, epochs=2), **changes),)

    with pytest.raises(InputError) as caught:
        make_plan(PlanConfig(strategy=rule), 100)
    assert message in str(caught.value)


def test_a_stage_with_rates_by_epoch_survives_serialization():
    (stage,) = plan("cosine", epochs_per_stage=2)
    assert stage_from_dict(stage_to_dict(stage)) == stage
    older = {name: value for name, value in stage_to_dict(stage).items() if name != "epoch_rates"}
    assert stage_from_dict(older).epoch_rates is None


def test_a_control_on_the_command_line_is_matched_to_the_configured_strategy():
    experiment = ExperimentConfig(plan=PlanConfig(strategy=two_stages))
    parsed = parse_fields(experiment, ["--plan.strategy", "equal_updates"], "test")
    assert (parsed.plan.strategy, parsed.plan.staged) == ("equal_updates", two_stages)
    assert parse_fields(experiment, ["--plan.batch_size", "8"], "test").plan.staged == "stepwise"
    named = parse_fields(ExperimentConfig(), ["--plan.strategy", "equal_updates"], "test")
    assert named.plan.staged == "stepwise"


@pytest.mark.parametrize("name", CONTROLS)
def test_a_plan_with_warm_up_has_every_control(name):
    # A stage with a rate for each epoch has its warm-up in them.
    assert all(stage.warmup_epochs == 0 or stage.epoch_rates is None for stage in plan(name, warmup_epochs=2))


def test_cosine_warms_up():
    (cold,), (warm,) = plan("cosine"), plan("cosine", warmup_epochs=2)
    first, second, *others = [learning_rate_at(cold, epoch) for epoch in range(1, 61)]
    assert warm.epoch_rates == pytest.approx([first / 3, second * 2 / 3, *others])
