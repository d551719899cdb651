import dataclasses
import json
from fractions import Fraction

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.learning_rates import learning_rates
from stepwise_jax.plans.planning import make_plan, plan_to_dict
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale, stage_from_dict, stage_to_dict
from stepwise_jax.plans.strategies import baseline, single_set, stepwise

M = 50_000


def plan(examples: int = M, **fields) -> tuple[Stage, ...]:
    return make_plan(PlanConfig(**fields), examples)


def test_the_papers_plan():
    stages = plan()
    assert [stage.name for stage in stages] == ["A", "B", "C", "D", "O"]
    assert [stage.examples for stage in stages] == [10_000, 20_000, 30_000, 40_000, 50_000]
    assert [stage.batch_size for stage in stages] == [24, 48, 72, 96, 24]
    assert [stage.learning_rate for stage in stages] == pytest.approx([1e-3, 2e-5, 2e-5, 2e-5, 1e-3], rel=1e-12)
    assert [stage.milestones for stage in stages] == [(10,)] * 5
    assert [stage.epochs for stage in stages] == [20] * 5
    assert [stage.updates_per_epoch for stage in stages] == [416, 416, 416, 416, 2083]
    assert {(stage.momentum, stage.weight_decay) for stage in stages} == {(0.9, 1e-4)}


def test_the_papers_cost():
    document = plan_to_dict(plan(), baseline(PlanConfig(), M))
    assert document["samples"] == 60 * M
    assert document["baseline"]["samples"] == 100 * M
    assert document["relative_samples"] == pytest.approx(0.6)
    # 36 M/b against 100 M/b updates, up to the dropped last batches.
    assert document["updates"] == pytest.approx(36 * M / 24, rel=2e-3)
    assert document["relative_updates"] == pytest.approx(0.36, rel=2e-3)


def test_baseline_is_a_plan_of_one_stage():
    (stage,) = plan(strategy="baseline")
    assert (stage.name, stage.examples, stage.batch_size, stage.learning_rate) == ("O", M, 24, 0.001)
    assert (stage.epochs, stage.milestones) == (100, (30, 60, 90))


def test_single_set_trains_one_set_alone():
    (stage,) = plan(strategy="single_set", fractions=(0.2,), batch_multipliers=(1.0,))
    assert (stage.name, stage.examples, stage.batch_size, stage.epochs, stage.milestones) == (
        "A",
        10_000,
        24,
        20,
        (10,),
    )
    assert single_set(PlanConfig(), M)[0].name == "O"


# Exact fractions for lambda = 1/1000, b = 24, b_i = 24, 48, 72, 96, 24 and n = 5.
READINGS = {
    "eq9": ["1/1000", "1/50000", "1/50000", "1/50000", "1/1000"],
    "eq9_recursive": ["1/1000", "1/50000", "1/2500000", "1/125000000", "1/125000000"],
    "eq9_literal": ["1/24000", "1/2400000", "1/3600000", "1/4800000", "1/24000"],
    "eq9_base_batch": ["1/1000", "2/50000", "3/50000", "4/50000", "1/1000"],
    "constant": ["1/1000"] * 5,
    "linear_scaling": ["1/1000", "2/1000", "3/1000", "4/1000", "1/1000"],
}


@pytest.mark.parametrize("rule", READINGS)
def test_readings_of_eq9(rule):
    expected = [float(Fraction(text)) for text in READINGS[rule]]
    assert [stage.learning_rate for stage in plan(learning_rate_rule=rule)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rule", READINGS)
def test_one_and_two_stages_have_no_reduced_rate(rule):
    assert len(learning_rates(rule, 0.001, 24, (24,))) == 1
    first, last = learning_rates(rule, 0.001, 24, (24, 24))
    assert first == last


@pytest.mark.parametrize("varied_rate", [True, False])
@pytest.mark.parametrize("varied_batch", [True, False])
def test_the_two_switches_of_table_vii(varied_rate, varied_batch):
    rule = "eq9" if varied_rate else "constant"
    multipliers = (1, 2, 3, 4, 1) if varied_batch else (1,) * 5
    stages = plan(2509, learning_rate_rule=rule, batch_multipliers=multipliers)
    assert len({stage.learning_rate for stage in stages}) == (2 if varied_rate else 1)
    assert len({stage.batch_size for stage in stages}) == (4 if varied_batch else 1)
    assert [stage.examples for stage in stages] == [502, 1004, 1505, 2007, 2509]


def test_any_fractions_and_multipliers():
    stages = plan(fractions=(0.25, 0.5, 1.0), batch_multipliers=(1, 1.5, 5), batch_size=16)
    assert [(stage.name, stage.examples, stage.batch_size) for stage in stages] == [
        ("25%", 12_500, 16),
        ("50%", 25_000, 24),
        ("O", 50_000, 80),
    ]


def test_noise_scales():
    stage = plan()[1]
    assert stage.noise_scale == pytest.approx(2e-5 * 20_000 / 48)
    assert stage.noise_scale_exact == pytest.approx(2e-5 * (20_000 / 48 - 1))
    assert noise_scale(stage, 2e-6) == pytest.approx(stage.noise_scale / 10)


def test_the_rate_decays_after_each_completed_milestone():
    (stage,) = plan(strategy="baseline")
    rates = [learning_rate_at(stage, epoch) for epoch in range(1, 101)]
    expected = [1e-3] * 30 + [1e-4] * 30 + [1e-5] * 30 + [1e-6] * 10
    assert rates == pytest.approx(expected)


def test_milestones_lie_within_a_stage():
    assert plan(milestones=(5, 15))[0].milestones == (5, 15)
    with pytest.raises(InputError, match=r"milestones is \(5, 20\): it must be below plan.epochs_per_stage, 20"):
        plan(milestones=(5, 20))


def test_subsets_may_shrink():
    def shrinking(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
        return tuple(Stage("s", k, round(k * examples), config.batch_size, 0.1, epochs=3) for k in (1.0, 0.5))

    assert [stage.examples for stage in plan(strategy=shrinking)] == [50_000, 25_000]


def test_a_user_defined_strategy():
    def halves(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
        return (Stage("half", 0.5, examples // 2, config.batch_size, 0.1, epochs=3, momentum=0.5),)

    (stage,) = plan(strategy=halves)
    assert (stage.examples, stage.momentum, stage.weight_decay) == (25_000, 0.5, 1e-4)


class Unusual(BaseException):
    """What is neither an error nor an interruption."""


@pytest.mark.parametrize("error", [KeyError("nothing"), SystemExit(0), Unusual("nothing")])
def test_a_failing_strategy_is_reported_in_one_sentence_with_its_line(error):
    def broken(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
        raise error

    line = broken.__code__.co_firstlineno + 1
    place = rf"line {line} of .*test_planning\.py: {type(error).__name__}: "
    with pytest.raises(InputError, match=rf"^plan\.strategy: broken\(plan, 50000\) failed: {place}"):
        plan(strategy=broken)


@pytest.mark.parametrize("result", [(), [], None, (1,)])
def test_a_strategy_must_return_stages(result):
    with pytest.raises(InputError, match="must return a tuple of at least one Stage"):
        plan(strategy=lambda config, examples: result)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": M + 1}, "at most 50000"),
        ({"examples": 0}, "at least 1"),
        ({"learning_rate": "x"}, "a number"),
        ({"milestones": None}, "a tuple"),
        ({"fraction": 0.0}, "above 0"),
        ({"momentum": 7.0}, "below 1"),
        ({"weight_decay": -3.0}, "not negative"),
        ({"batch_size": M + 1}, "the examples in the stage"),
        ({"batch_size": 2.5}, "whole number"),
        ({"epochs": 0}, "at least 1"),
        ({"learning_rate": -1.0}, "a positive number"),
        ({"milestones": (9, 3)}, "rising numbers"),
        ({"milestones": (20,)}, "between 0 and 20, the epochs of the stage"),
    ],
)
def test_a_stage_that_cannot_be_trained_is_rejected(changes, message):
    def strategy(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
        return (dataclasses.replace(stepwise(config, examples)[0], **changes),)

    with pytest.raises(InputError, match="of stage 1") as caught:
        plan(strategy=strategy)
    assert message in str(caught.value)


def test_a_batch_larger_than_its_subset_is_rejected():
    with pytest.raises(InputError, match=r"batch_size of stage 1 \(A\) is 24: it must be at most 10"):
        plan(50)


def test_a_multiplier_must_give_a_whole_batch():
    with pytest.raises(InputError, match=r"plan\.batch_multipliers"):
        plan(batch_size=5, batch_multipliers=(1, 1.5, 3, 4, 1))


def test_a_stage_survives_json():
    stage = plan()[3]
    assert stage_from_dict(json.loads(json.dumps(stage_to_dict(stage)))) == stage


def test_a_recorded_stage_without_a_field_is_rejected():
    with pytest.raises(InputError, match="recorded stage"):
        stage_from_dict({"name": "A"})
