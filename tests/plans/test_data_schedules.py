"""The schedules of data and image size against their closed forms, and properties of every strategy of the table."""

import dataclasses
import math

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.registry import shown_strategies, with_strategy
from stepwise_jax.plans.stage import Stage, learning_rate_at, stage_from_dict, stage_to_dict
from stepwise_jax.plans.strategies import stepwise

M = 50_000

OTHER_BUDGETS = ("baseline", "single_set", "equal_updates", "last_stage")
"""Strategies that do not have the samples of the staged run."""


def plan(strategy: str, examples: int = M, **fields) -> tuple[Stage, ...]:
    return make_plan(PlanConfig(strategy=strategy, **fields), examples)


def samples(planned: tuple[Stage, ...]) -> int:
    return sum(stage.samples for stage in planned)


def test_falling_keeps_a_share_and_ends_with_all():
    stages = plan("falling:0.7:6")
    assert [stage.examples for stage in stages] == [50_000, 35_000, 24_500, 17_150, 12_005, 50_000]
    assert [stage.name for stage in stages] == ["O", "70%", "49%", "34.3%", "24%", "O"]
    # As many epochs in each stage, to the nearest: 60 M / (1 + 0.7 + ... + 0.7^4 + 1) = 15.9.
    assert {stage.epochs for stage in stages} <= {15, 16, 17}
    assert abs(samples(stages) - 60 * M) <= M / 2
    assert [stage.examples for stage in plan("falling:0.5:4", 7, batch_size=1)] == [7, 4, 2, 7]


@pytest.mark.parametrize(("keep", "examples"), [(0.9, 1437), (0.8, 75_750), (0.35, 1437)])
def test_falling_rounds_up(keep, examples):
    stages = plan(f"falling:{keep}", examples, batch_size=1)
    expected = [math.ceil(examples * keep**t - 1e-6) for t in range(4)]
    assert [stage.examples for stage in stages] == [*expected, examples]


def test_redrawn_changes_the_draw_alone():
    staged = plan("stepwise")
    assert plan("redrawn") == tuple(dataclasses.replace(stage, draw="redrawn") for stage in staged)


def test_shrink_perturb_is_the_staged_run_with_its_boundary_rule():
    assert plan("shrink_perturb", carry="shrink_perturb") == plan("stepwise")
    assert with_strategy(PlanConfig(), "shrink_perturb").carry == "shrink_perturb"
    assert plan("shrink_perturb", carry=lambda state, make_initial_state: state) == plan("stepwise")
    with pytest.raises(InputError, match=r"plan\.carry is 'state': it must be 'shrink_perturb'"):
        plan("shrink_perturb")


def test_progressive_size_grows_by_equal_steps():
    stages = plan("progressive_size:128:300")
    # 128 + 172 (s + 1) / 4.
    assert [(stage.image_size, stage.epochs) for stage in stages] == [(171, 15), (214, 15), (257, 15), (300, 15)]
    assert [stage.image_size for stage in plan("progressive_size:8:16:stages=3")] == [10, 13, 16]
    rates = [learning_rate_at(stage, epoch) for stage in stages for epoch in range(1, stage.epochs + 1)]
    assert rates == pytest.approx([0.001] * 18 + [1e-4] * 18 + [1e-5] * 18 + [1e-6] * 6)


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 5])
def test_progressive_size_has_the_stages_that_it_names_or_is_refused(stages):
    few = {"fractions": (1.0,), "batch_multipliers": (1.0,), "epochs_per_stage": 3}
    if stages <= 3:
        assert len(plan(f"progressive_size:128:300:stages={stages}", **few)) == stages
        return
    message = f"stages of progressive_size is {stages}: it must be at most 3, the epochs of the run, so that each size"
    with pytest.raises(InputError, match=message):
        plan(f"progressive_size:128:300:stages={stages}", **few)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("falling:1", "keep of falling is 1.0: it must be between 0 and 1"),
        ("falling:stages=0", "stages of falling is 0: it must be from 1 to 1000"),
        ("falling:0.1", "batch_size of stage 4 (0.1%) is 64: it must be at most 50"),
        ("progressive_size", "needs smallest and largest, as progressive_size:smallest:largest:stages=4"),
        ("progressive_size:64:32", "smallest of progressive_size is 64: it must be from 1 to the largest, 32"),
        ("progressive_size:8:32:0", "stages of progressive_size is 0: it must be from 1 to 1000"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(strategy, message):
    with pytest.raises(InputError) as caught:
        plan(strategy, batch_size=64)
    assert message in str(caught.value)


def two_stages(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """A user-defined strategy."""
    half = max(1, examples // 2)
    return Stage("half", 0.5, half, 1, 0.3, epochs=3), Stage("all", 1.0, examples, 2, 0.05, epochs=2, milestones=(1,))


@pytest.mark.parametrize("name", shown_strategies())
@pytest.mark.parametrize("examples", [7, 97, 2509])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"warmup_epochs": 3},
        {"epochs_per_stage": 1, "decay_every": 1, "baseline_epochs": 1},
        {"decay_factor": 1.0, "draw": "redrawn"},
        {"milestones": (3, 4), "decay_factor": 0.75},
        {"staged": two_stages},
    ],
)
def test_every_strategy_makes_a_plan_of_its_budget(name, examples, fields):
    # Three epochs are too few for its four stages.
    short = name.startswith("progressive_size") and {"epochs_per_stage", "staged"} & fields.keys()
    config = with_strategy(PlanConfig(batch_size=1, **fields), f"{name}:stages=3" if short else name)
    stages = make_plan(config, examples)
    assert all(1 <= stage.batch_size <= stage.examples <= examples for stage in stages)
    assert all(stage.samples == stage.epochs * stage.examples for stage in stages)
    assert stages[-1].examples == examples
    assert make_plan(config, examples) == stages == tuple(stage_from_dict(stage_to_dict(stage)) for stage in stages)
    staged = fields.get("staged", stepwise)(config, examples)
    if name not in (*OTHER_BUDGETS, "stepwise"):
        assert abs(samples(stages) - samples(staged)) <= examples / 2 or samples(stages) == examples


@pytest.mark.parametrize("name", [name for name in shown_strategies() if name not in OTHER_BUDGETS])
def test_most_strategies_cost_60_percent_of_the_baseline(name):
    stages = make_plan(with_strategy(PlanConfig(), name), M)
    assert samples(stages) / samples(plan("baseline")) == pytest.approx(0.6, abs=0.005)
