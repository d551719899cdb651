"""The folder of a comparison: its document, more seeds and strategies, and failures."""

import dataclasses
import json

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.studies import comparison_folder
from stepwise_jax.studies.comparison_folder import open_comparison_folder
from stepwise_jax.studies.jobs import Failure, Job
from tests.studies.example_comparison import EXPERIMENT, compared, own


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


def test_commands_that_start_at_once_share_a_folder(tmp_path):
    """One of them is just writing the document."""
    (tmp_path / ".comparison.json.12.34.tmp").write_text("{")
    assert open_comparison_folder(tmp_path, compared("stepwise", "baseline")).seeds


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
