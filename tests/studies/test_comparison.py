"""A comparison's strategies, rows of a configuration file, plans and runs."""

from pathlib import Path

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.registry import STRATEGIES, shown_strategies
from stepwise_jax.studies import comparison
from stepwise_jax.studies.comparison import choose_arms
from stepwise_jax.studies.variants import VARIANTS, default_names
from tests.studies.example_comparison import EXPERIMENT, ROWS, changes_of, compared, own, plans_of

NAMES = [*shown_strategies(), *(name for name in VARIANTS if name not in STRATEGIES)]


def test_eight_are_compared_by_default():
    names = [each.name for each in choose_arms([], "mine.py", EXPERIMENT, {})]
    assert names[:4] == ["stepwise", "constant_rate", "data_only", "baseline"]
    assert names[4:] == ["equal_samples", "equal_samples_rate_curve", "equal_updates", "cosine"]


def test_a_rule_of_the_users_own_takes_the_papers_place():
    experiment = ExperimentConfig(plan=PlanConfig(strategy=own))
    assert default_names(experiment)[0] == "own"
    first = choose_arms([], "mine.py", experiment, {})[0]
    assert (first.name, first.arguments()) == ("own", ())


def test_rows_and_variants_may_stand_together():
    row, variant = choose_arms(["short", "baseline"], "configs/mine.py", EXPERIMENT, ROWS)
    assert (row.name, row.config, row.arguments()) == ("short", "configs/mine.py:short", ())
    assert (variant.name, variant.config) == ("baseline", "configs/mine.py")
    assert variant.arguments() == ("--plan.strategy", "baseline", "--plan.learning_rate_rule", "eq9")
    assert [each.name for each in choose_arms(["rows"], "mine.py", EXPERIMENT, ROWS)] == list(ROWS)
    of_row = choose_arms(["short", "baseline"], "mine.py:short", EXPERIMENT, ROWS)
    assert [each.config for each in of_row] == ["mine.py:short", "mine.py:short"]


@pytest.mark.parametrize(
    ("names", "rows_", "message"),
    [
        (["baselin", "stepwise"], {}, "'baselin' is neither a row of mine.py nor a known strategy: try baseline"),
        (["shrt", "stepwise"], ROWS, "try short"),
        (["baseline", "baseline"], {}, "different names"),
        (["baseline"], {}, "at least two names"),
        (["rows"], {}, "mine.py has no get_rows()"),
    ],
)
def test_names_that_cannot_be_compared(names, rows_, message):
    with pytest.raises(InputError, match="--strategies") as caught:
        choose_arms(names, "mine.py", EXPERIMENT, rows_)
    assert message in str(caught.value)


def test_values_that_do_not_fit_a_strategy_are_refused():
    with pytest.raises(InputError, match="a value after baseline is '3': it must be left out"):
        choose_arms(["baseline:3", "stepwise"], "mine.py", EXPERIMENT, {})


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_is_a_plan(name):
    experiment = override_fields(EXPERIMENT, changes_of(name))
    assert make_plan(experiment.plan, 50_000, experiment.optimizer)


def duplicates_of(*names: str, experiment: ExperimentConfig = EXPERIMENT) -> tuple[tuple[str, str], ...]:
    found = {name: override_fields(experiment, changes_of(name)) for name in names}
    return comparison.find_duplicates(found, plans_of(*names, experiment=experiment))


def test_duplicates_are_found():
    assert duplicates_of("rate_only", "cosine", "equal_samples_rate_curve") == (
        ("rate_only", "equal_samples_rate_curve"),
    )
    assert duplicates_of("own", "stepwise") == (("own", "stepwise"),)
    constant = ExperimentConfig(plan=PlanConfig(batch_multipliers=(1,) * 5))
    assert duplicates_of("constant_rate", "data_only", experiment=constant) == (("constant_rate", "data_only"),)


def test_duplicates_are_refused_where_they_are_named_and_left_out_where_not():
    arms = tuple(comparison.Arm(name, "", "c.py", {}) for name in ("a", "b", "c"))
    compared = comparison.Comparison("c.py", ExperimentConfig(), arms, (0,))
    left = comparison.drop_duplicates(compared, (("a", "b"),), named=False)
    assert [each.name for each in left.arms] == ["a", "c"]
    with pytest.raises(InputError, match="strategies a and b are the same run here"):
        comparison.drop_duplicates(compared, (("a", "b"),), named=True)


def test_what_differs_beside_the_stages_is_no_duplicate():
    assert duplicates_of("stepwise", "fresh_momentum") == ()
    # The largest set alone is the last stage, under the paper's plan.
    twins = ("own", "rate_only", "single_set")
    assert duplicates_of(*[name for name in NAMES if name not in twins]) == ()


def test_a_plan_that_cannot_be_made_names_its_strategy():
    with pytest.raises(InputError, match="strategy stepwise: batch_size of stage 1"):
        plans_of("baseline", "stepwise", examples=100)


def test_runs_come_seed_by_seed():
    two = compared("stepwise", "baseline", seeds=(3, 4))
    stages = plans_of("stepwise", "baseline")
    jobs = comparison.make_jobs(two, Path("runs"), stages, ("python", "launch.py"), ("--model.width", "4"))
    assert [job.name for job in jobs] == [f"{name}, seed {seed}" for seed in (3, 4) for name in stages]
    assert jobs[1].command[:5] == ("python", "launch.py", "train", "mine.py", "--workdir")
    assert jobs[1].folder == Path("runs/baseline/seed3")
    # The strategy's own fields come last, and win.
    arguments = jobs[1].command
    assert arguments.index("--model.width") < arguments.index("--plan.strategy") < arguments.index("--seed")
    assert arguments[-2:] == ("--seed", "3")
    assert jobs[0].samples == sum(stage.updates * stage.batch_size for stage in stages["stepwise"])


def test_a_field_that_every_strategy_sets_is_refused():
    given, requested = EXPERIMENT, override_fields(EXPERIMENT, {"plan.learning_rate_rule": "constant"})
    arms = choose_arms(["stepwise", "baseline"], "mine.py", requested, ROWS)
    with pytest.raises(InputError, match=r"--plan\.learning_rate_rule constant: each of the strategies sets this"):
        comparison.reject_ignored_fields(given, requested, arms)
    comparison.reject_ignored_fields(given, requested, choose_arms(["own", "baseline"], "mine.py", requested, ROWS))
    comparison.reject_ignored_fields(given, override_fields(given, {"seed": 4, "plan.batch_size": 8}), arms)
