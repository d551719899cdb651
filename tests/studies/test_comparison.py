"""A comparison's plan, its folder, and what it makes of runs in every condition."""

import dataclasses
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stepwise_jax.cli.study_tables import print_comparison
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies import comparison, comparison_folder
from stepwise_jax.studies.comparison import Comparison, choose_arms
from stepwise_jax.studies.comparison_folder import arm_differences, open_comparison_folder, read_finished_runs
from stepwise_jax.studies.comparison_table import COMPARISON_HEADER, comparison_rows
from stepwise_jax.studies.jobs import Failure, Job
from stepwise_jax.studies.variants import VARIANTS, default_names
from stepwise_jax.workdir.files import CONFIG, PREDICTIONS, SUMMARY
from stepwise_jax.workdir.folder import config_document

EXPERIMENT = ExperimentConfig()
ROWS = {"short": ExperimentConfig(plan=PlanConfig(epochs_per_stage=5)), "long [slow]": ExperimentConfig()}


def own(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
    return (Stage("all", 1.0, examples, 10, 0.3, epochs=3),)


def compared(*names: str, seeds: Sequence[int] = (0, 1), experiment: ExperimentConfig = EXPERIMENT) -> Comparison:
    return Comparison("mine.py", experiment, choose_arms(names, "mine.py", experiment, ROWS), tuple(seeds))


# Names


def test_seven_are_compared_by_default():
    names = [each.name for each in choose_arms([], "mine.py", EXPERIMENT, {})]
    assert names[:4] == ["stepwise", "constant_rate", "data_only", "baseline"]
    assert names[4:] == ["equal_samples", "equal_samples_rate_curve", "equal_updates"]


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


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_plan(name):
    experiment = override_fields(EXPERIMENT, VARIANTS[name].changes)
    assert make_plan(experiment.plan, 50_000, experiment.optimizer)


# Plans


def plans_of(*names: str, experiment: ExperimentConfig = EXPERIMENT, examples: int = 50_000):
    found = {name: override_fields(experiment, VARIANTS[name].changes) for name in names}
    return comparison.make_plans(found, dict.fromkeys(found, examples))


def duplicates_of(*names: str, experiment: ExperimentConfig = EXPERIMENT) -> tuple[tuple[str, str], ...]:
    found = {name: override_fields(experiment, VARIANTS[name].changes) for name in names}
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
    assert duplicates_of(*[name for name in VARIANTS if name not in ("own", "rate_only")]) == ()


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


# The folder


def test_a_new_folder_and_the_same_again(tmp_path):
    two = compared("short", "baseline")
    assert open_comparison_folder(tmp_path / "a" / "b", two) == two
    assert open_comparison_folder(tmp_path / "a" / "b", two) == two
    assert comparison_folder.read_comparison(tmp_path / "a" / "b") == two


def test_more_seeds_and_strategies_join(tmp_path):
    open_comparison_folder(tmp_path, compared("stepwise", "baseline", seeds=(0, 1)))
    later = compared("equal_samples", "baseline", seeds=(1, 2), experiment=override_fields(EXPERIMENT, {"seed": 1}))
    joined = open_comparison_folder(tmp_path, later)
    assert [each.name for each in joined.arms] == ["stepwise", "baseline", "equal_samples"]
    assert joined.seeds == (0, 1, 2)
    assert comparison_folder.read_comparison(tmp_path).seeds == (0, 1, 2)


@pytest.mark.parametrize("name", ["single_set", "baseline", own])
def test_a_comparison_of_any_strategy_is_read_back(tmp_path, name):
    fields = {"fractions": (0.2,), "batch_multipliers": (1,)} if name == "single_set" else {}
    experiment = ExperimentConfig(plan=PlanConfig(strategy=name, **fields))  # pyright: ignore
    two = compared("own", "short", experiment=experiment)
    open_comparison_folder(tmp_path, two)
    assert open_comparison_folder(tmp_path, two).arms == two.arms


def test_another_experiment_is_refused(tmp_path):
    open_comparison_folder(tmp_path, compared("stepwise", "baseline"))
    other = compared("stepwise", "baseline", experiment=override_fields(EXPERIMENT, {"model.width": 4}))
    with pytest.raises(InputError, match=r"holds another comparison \(model\.width: 4 instead of None\)"):
        open_comparison_folder(tmp_path, other)
    two = compared("stepwise", "baseline")
    changed = dataclasses.replace(two.arms[1], changes={"plan.strategy": "cosine"})
    with pytest.raises(InputError, match="strategy baseline: other fields"):
        open_comparison_folder(tmp_path, dataclasses.replace(two, arms=(two.arms[0], changed)))


def test_where_data_lies_and_how_often_is_saved_may_change(tmp_path):
    open_comparison_folder(tmp_path, compared("stepwise", "baseline"))
    moved = override_fields(EXPERIMENT, {"data.data_dir": "/elsewhere", "checkpoint.every_seconds": 7.0})
    open_comparison_folder(tmp_path, compared("stepwise", "baseline", experiment=moved))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is not empty and holds no comparison"):
        open_comparison_folder(tmp_path, compared("stepwise", "baseline"))
    with pytest.raises(InputError, match="cannot be written"):
        open_comparison_folder(tmp_path / "letter.txt", compared("stepwise", "baseline"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: "{",
        lambda document: "[]",
        lambda document: "{}",
        lambda document: json.dumps({**document, "strategies": []}),
        lambda document: json.dumps({**document, "strategies": [3, 4]}),
        lambda document: json.dumps({**document, "strategies": [{"name": "a"}] * 2}),
        lambda document: json.dumps({**document, "seeds": ["one"]}),
        lambda document: json.dumps({**document, "seeds": []}),
        lambda document: json.dumps({**document, "seeds": None}),
        lambda document: json.dumps({**document, "experiment": {}}),
        lambda document: json.dumps({**document, "experiment": {**document["experiment"], "plan": 7}}),
        lambda document: json.dumps({**document, "experiment": {**document["experiment"], "seed": "x"}}),
    ],
)
def test_a_damaged_document_is_reported(tmp_path, damage):
    open_comparison_folder(tmp_path, compared("stepwise", "baseline"))
    path = tmp_path / comparison_folder.COMPARISON_FILE
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(InputError, match="is damaged"):
        open_comparison_folder(tmp_path, compared("stepwise", "baseline"))


def test_failures_are_written_down(tmp_path):
    job = Job("baseline, seed 3", tmp_path, (), 1)
    comparison_folder.write_failures(tmp_path, [Failure(job, 3, "the loss is not finite")])
    assert json.loads((tmp_path / comparison_folder.FAILURES_FILE).read_text()) == {
        "failures": [{"run": "baseline, seed 3", "status": 3, "message": "the loss is not finite"}]
    }


# Runs

IDS = tuple(f"image{number}" for number in range(50))


def finish(root: Path, strategy: str, seed: int, right: int, ids: Sequence[str] = IDS) -> Path:
    """A finished run that has `right` of the images right, the last ones."""
    folder = root / strategy / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.arange(len(ids)) % 2
    predicted = np.where(np.arange(len(ids)) >= len(ids) - right, labels, 1 - labels)
    probabilities = np.eye(2, dtype=np.float32)[predicted]
    np.savez(folder / PREDICTIONS, ids=np.asarray(ids), labels=labels, probabilities=probabilities)
    reached = {"top1": right / len(ids), "top5": 1.0, "best_top1": 0.9, "samples": 1200, "updates": 30}
    (folder / SUMMARY).write_text(json.dumps({**reached, "seconds": {"train": 60.0, "compile": 5.0}}))
    return folder


def test_finished_runs_are_paired_by_seed(tmp_path):
    two = compared("short", "baseline", seeds=(0, 1, 2, 3))
    for seed, (ours, theirs) in enumerate([(40, 35), (41, 38), (44, 35)]):
        finish(tmp_path, "short", seed, ours)
        finish(tmp_path, "baseline", seed, theirs)
    finish(tmp_path, "short", 3, 50)
    runs = read_finished_runs(two, tmp_path)
    assert {name: sorted(of_seed) for name, of_seed in runs.items()} == {"short": [0, 1, 2, 3], "baseline": [0, 1, 2]}
    assert runs["short"][0].correct.sum() == 40
    (found,) = arm_differences(two, runs)
    assert found.by_seed == pytest.approx({0: 0.1, 1: 0.06, 2: 0.18})
    assert found.image_interval is not None
    assert found.image_interval.low <= found.mean <= found.image_interval.high
    # By hand: mean 17/3 right, deviation of 5, 3, 9 over the root of 3, t(0.975, 2) = 4.3027.
    half = 4.3027 * np.std([5, 3, 9], ddof=1) / math.sqrt(3) / 50
    assert found.interval is not None
    assert found.interval.high - found.mean == pytest.approx(half, rel=1e-4)


def test_a_run_in_progress_does_not_count(tmp_path):
    two = compared("short", "baseline", seeds=(0,))
    finish(tmp_path, "short", 0, 40)
    under_way = finish(tmp_path, "baseline", 0, 40)
    (under_way / SUMMARY).unlink()
    (under_way / PREDICTIONS).write_bytes(b"half")
    runs = read_finished_runs(two, tmp_path)
    assert runs["baseline"] == {}
    assert arm_differences(two, runs) == ()


def test_runs_on_other_images_are_not_compared_image_by_image(tmp_path):
    two = compared("short", "baseline", seeds=(0,))
    finish(tmp_path, "short", 0, 40)
    finish(tmp_path, "baseline", 0, 30, ids=[f"other{number}" for number in range(50)])
    (found,) = arm_differences(two, read_finished_runs(two, tmp_path))
    assert found.mean == pytest.approx(0.2)
    assert found.image_interval is None


def test_damaged_runs_are_named(tmp_path):
    two = compared("short", "baseline", seeds=(0,))
    folder = finish(tmp_path, "short", 0, 40)
    whole = (folder / PREDICTIONS).read_bytes()
    for content in (b"", b"no archive", whole[:200], whole[:-100], b"PK\x03\x04" + whole[4:300]):
        (folder / PREDICTIONS).write_bytes(content)
        with pytest.raises(InputError, match=r"predictions\.npz is missing or damaged: train the run again"):
            read_finished_runs(two, tmp_path)
    (folder / PREDICTIONS).write_bytes(whole)
    for content in ("[]", "{}", '{"top1": "high"}'):
        (folder / SUMMARY).write_text(content)
        with pytest.raises(InputError, match=r"summary\.json is damaged"):
            read_finished_runs(two, tmp_path)


def record(folder: Path, experiment: ExperimentConfig, stages: tuple[Stage, ...]) -> None:
    (folder / CONFIG).write_text(json.dumps(config_document(experiment, stages, "mine.py", None, "1 x cpu")))


def test_a_finished_run_of_something_else_is_not_taken_for_ours(tmp_path):
    """A row of the configuration file that was edited in between, say."""
    two, stages = compared("short", "baseline", seeds=(0, 5)), plans_of("own", "baseline")
    stages = {"short": stages["own"], "baseline": stages["baseline"]}
    experiments = {"short": EXPERIMENT, "baseline": override_fields(EXPERIMENT, VARIANTS["baseline"].changes)}
    comparison_folder.check_finished_runs(two, tmp_path, experiments, stages)
    folder = finish(tmp_path, "short", 5, 40)
    record(
        folder, override_fields(EXPERIMENT, {"seed": 5, "steps_per_call": 1, "data.root": "/before"}), stages["short"]
    )
    comparison_folder.check_finished_runs(two, tmp_path, experiments, stages)
    narrow = override_fields(EXPERIMENT, {"seed": 5, "steps_per_call": 1, "model.width": 8})
    record(folder, narrow, stages["short"])
    with pytest.raises(InputError, match=r"seed5 holds another experiment \(model\.width: None instead of 8\)"):
        comparison_folder.check_finished_runs(two, tmp_path, experiments, stages)


# What is shown


def test_the_table_has_the_numbers(tmp_path):
    three = compared("short", "baseline", "long [slow]", seeds=(0, 1))
    for seed, (ours, theirs) in enumerate([(40, 35), (41, 38)]):
        finish(tmp_path, "short", seed, ours)
        finish(tmp_path, "baseline", seed, theirs)
    runs = read_finished_runs(three, tmp_path)
    differences = arm_differences(three, runs)
    table = comparison_rows(three, runs, differences)
    assert all(len(row) == len(COMPARISON_HEADER) for row in table)
    assert table[0][:3] == ("short", "2", f"81.00 ± {100 * np.std([0.8, 0.82], ddof=1):.2f}")
    assert table[0][3:7] == ("–",) * 4
    assert table[1][3] == "+8.00"
    assert table[1][7:] == ("1,200", "30", "0:01:05")
    assert table[2] == ("long [slow]", "0", *("–",) * 8)
    stream = io.StringIO()
    print_comparison(three, runs, differences, stream)
    output = stream.getvalue()
    assert "long [slow]" in output
    assert "+8.00" in output
    assert "No difference shown between short and baseline (+8.00" in output


def test_an_empty_comparison_can_be_shown(tmp_path):
    two, stream = compared("short", "baseline"), io.StringIO()
    runs = read_finished_runs(two, tmp_path)
    print_comparison(two, runs, arm_differences(two, runs), stream)
    assert "nothing to compare short with yet" in stream.getvalue()
