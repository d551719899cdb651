"""Choosing strategies, the comparison's folder, and what its runs have shown."""

import dataclasses
import io
import json
from typing import Any

import pytest
from made_runs import make_comparison

from stepwise_jax import comparison
from stepwise_jax.command_line import load_config, load_rows, parse_fields
from stepwise_jax.comparison_table import print_comparison, rows
from stepwise_jax.config import DataConfig, ExperimentConfig, PlanConfig, override
from stepwise_jax.errors import InputError

CONFIG = "configs/cifar100_resnet50.py"


def choose(*names: str, config: str = CONFIG):
    return comparison.choose(names, config, load_config(config), load_rows(config))


def test_seven_by_default():
    assert [each.name for each in choose()] == [
        "stepwise",
        "constant_rate",
        "data_only",
        "baseline",
        "equal_samples",
        "equal_samples_rate_curve",
        "equal_updates",
    ]


@pytest.mark.parametrize("config", ["configs/food101_res2net50.py", "configs/face_mask_res2net50_b24.py", CONFIG])
def test_the_seven_are_different_runs_under_every_reading(config):
    chosen = choose(config=config)
    experiments = {each.name: parse_fields(load_config(each.config), each.words(), "test") for each in chosen}
    assert len(comparison.plans(experiments, dict.fromkeys(experiments, 2509))) == 7
    assert experiments["baseline"].reproduces.endswith("/baseline")
    assert experiments["equal_samples"].reproduces == ""


def test_rows_of_the_file_come_before_ours():
    assert [each.config for each in choose("rows")][:2] == [f"{CONFIG}:baseline", f"{CONFIG}:stepwise"]
    first, second = choose("cosine", "A")
    assert first.words() == ("--plan.strategy", "cosine", "--plan.learning_rate_rule", "eq9")
    assert (second.config, second.words()) == (f"{CONFIG}:A", ())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("stepwise", "bseline"), "'bseline' is neither a row of configs/digits.py nor one of ours, as baseline"),
        (("stepwise", "stepwise"), "different names"),
        (("stepwise",), "at least two names"),
        (("rows",), "configs/digits.py has no get_rows"),
    ],
)
def test_names_that_cannot_be_compared(names, message):
    with pytest.raises(InputError, match=message):
        choose(*names, config="configs/digits.py")


def test_twins_and_impossible_plans_are_named():
    first = ExperimentConfig(data=DataConfig(name="digits"))
    again = override(first, {"plan.learning_rate_rule": "constant"})
    # What crosses a boundary tells runs apart that have the same stages.
    experiments = {"a": first, "b": again, "c": first, "d": override(first, {"plan.carry": "weights"}), "e": first}
    stages = comparison.plans(experiments, dict.fromkeys(experiments, 1437))
    assert comparison.twins(experiments, stages) == (("a", "c"), ("a", "e"))
    large = override(first, {"plan.batch_size": 400})
    with pytest.raises(InputError, match="strategy b: batch_size of stage 1"):
        comparison.plans({"a": first, "b": large}, dict.fromkeys("ab", 1437))


def test_twins_are_refused_where_they_are_named_and_left_out_where_not():
    compared = comparison.Comparison("c", ExperimentConfig(), choose(), (0,))
    pairs = (("stepwise", "constant_rate"),)
    left = comparison.without_twins(compared, pairs, named=False)
    assert len(left.strategies) == 6
    assert "constant_rate" not in [each.name for each in left.strategies]
    with pytest.raises(InputError, match="strategies stepwise and constant_rate are the same run here"):
        comparison.without_twins(compared, pairs, named=True)


def made(*names: str, seeds: tuple[int, ...] = (0, 1), fields: dict[str, Any] | None = None) -> comparison.Comparison:
    experiment = override(load_config(CONFIG), fields or {})
    return comparison.Comparison(CONFIG, experiment, choose(*names), seeds)


def test_a_comparison_goes_on_with_more_seeds_and_strategies(tmp_path):
    first = comparison.open_folder(tmp_path / "c", made("stepwise", "baseline"))
    more = comparison.open_folder(tmp_path / "c", made("stepwise", "cosine", seeds=(1, 2)))
    assert [each.name for each in more.strategies] == ["stepwise", "baseline", "cosine"]
    assert more.seeds == (0, 1, 2)
    stored = comparison.read(tmp_path / "c")
    assert (stored.strategies, stored.seeds, first.seeds) == (more.strategies, more.seeds, (0, 1))


def test_another_comparison_is_refused(tmp_path):
    comparison.open_folder(tmp_path, made("stepwise", "baseline"))
    comparison.open_folder(tmp_path, made("stepwise", "baseline", fields={"data.data_dir": "elsewhere"}))
    with pytest.raises(InputError, match=r"another comparison \(plan.batch_size: 16 instead of 24\)"):
        comparison.open_folder(tmp_path, made("stepwise", "baseline", fields={"plan.batch_size": 16}))
    changed = made("stepwise", "baseline")
    other = dataclasses.replace(changed.strategies[1], changes={"plan.strategy": "cosine"})
    with pytest.raises(InputError, match="strategy baseline: other fields"):
        comparison.open_folder(tmp_path, dataclasses.replace(changed, strategies=(changed.strategies[0], other)))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="holds no comparison"):
        comparison.open_folder(tmp_path, made("stepwise", "baseline"))
    with pytest.raises(InputError, match="cannot be written"):
        comparison.open_folder(tmp_path / "file" / "c", made("stepwise", "baseline"))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"config": 1, "experiment": {}, "strategies": [], "seeds": []}'])
def test_a_damaged_comparison_is_told(tmp_path, text):
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(InputError):
        comparison.read(tmp_path)


def test_a_strategy_of_ones_own_is_remembered_by_its_runs(tmp_path):
    def own(plan: PlanConfig, examples: int):
        raise AssertionError

    experiment = ExperimentConfig(plan=PlanConfig(strategy=own))
    strategies = comparison.choose([], "mine.py", experiment, {})
    comparison.open_folder(tmp_path, comparison.Comparison("mine.py", experiment, strategies, (0,)))
    again = comparison.open_folder(tmp_path, comparison.Comparison("mine.py", experiment, strategies, (0, 1)))
    assert again.seeds == (0, 1)


def test_each_run_is_a_command_that_can_be_repeated_by_hand(tmp_path):
    strategies = choose("stepwise", "baseline", config="configs/digits.py")
    compared = comparison.Comparison("configs/digits.py", load_config("configs/digits.py"), strategies, (0, 1))
    experiments = {each.name: override(compared.experiment, dict(each.changes)) for each in compared.strategies}
    stages = comparison.plans(experiments, dict.fromkeys(experiments, 1437))
    runs = comparison.make_cells(compared, tmp_path, stages, ("python", "launch.py"), ("--dtype", "bfloat16"))
    assert [run.name for run in runs] == [
        "stepwise, seed 0",
        "baseline, seed 0",
        "stepwise, seed 1",
        "baseline, seed 1",
    ]
    folder = tmp_path / "baseline" / "seed1"
    words = f"python launch.py train configs/digits.py --workdir {folder} --dtype bfloat16 --plan.strategy baseline"
    assert " ".join(runs[3].command) == f"{words} --plan.learning_rate_rule eq9 --seed 1"
    # Of 1,437 examples the last batch of 16 is not full.
    assert runs[3].samples == 50 * 1424


def test_finished_runs_are_paired_and_told(tmp_path):
    root = make_comparison(tmp_path / "c", seeds=(0, 1, 2))
    (root / "baseline" / "seed2" / "summary.json").unlink()
    compared = comparison.read(root)
    runs = comparison.finished_runs(compared, root)
    assert [sorted(of_seed) for of_seed in runs.values()] == [[0, 1, 2], [0, 1]]
    (difference,) = comparison.paired(compared, runs)
    assert sorted(difference.by_seed) == [0, 1]
    assert difference.image_interval is not None
    stream = io.StringIO()
    print_comparison(compared, runs, (difference,), stream)
    assert "baseline" in stream.getvalue()
    assert "stepwise is better than baseline" in stream.getvalue()
    assert [row[1] for row in rows(compared, runs, (difference,))] == ["3", "2"]


def test_answers_to_other_images_are_not_compared(tmp_path):
    root = make_comparison(tmp_path / "c", seeds=(0, 1))
    compared = comparison.read(root)
    runs = comparison.finished_runs(compared, root)
    moved = dataclasses.replace(runs["baseline"][0], ids=tuple(reversed(runs["baseline"][0].ids)))
    (difference,) = comparison.paired(compared, {**runs, "baseline": {**runs["baseline"], 0: moved}})
    assert difference.image_interval is None


def test_failures_are_kept(tmp_path):
    comparison.keep_failures(tmp_path, [])
    assert json.loads((tmp_path / "failures.json").read_text()) == {"failures": []}
