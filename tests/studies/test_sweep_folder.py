"""The folder of a sweep is opened again by the same sweep alone."""

import json
from pathlib import Path

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.sweep import (
    SWEEP_FILE,
    open_sweep_folder,
    parse_grid,
    sweep_to_dict,
)
from tests.studies.example_sweep import EXPERIMENT, make_sweep


def document(root: Path, grid: str = "plan.batch_size=24,48", experiment: ExperimentConfig = EXPERIMENT, **fields):
    return sweep_to_dict(
        make_sweep(root, experiment=experiment, **fields), "mine.py", parse_grid(EXPERIMENT, [grid]), None
    )


def single_set(config: PlanConfig, examples: int) -> tuple[Stage, ...]:
    return (Stage("all", 1.0, examples, 10, 0.3, epochs=3),)


@pytest.mark.parametrize(
    "plan",
    [
        PlanConfig(),
        PlanConfig(strategy="baseline"),
        PlanConfig(strategy="single_set", fractions=(0.2,), batch_multipliers=(1,)),
        PlanConfig(strategy=single_set),
    ],
)
def test_a_sweep_resumes_in_its_folder(tmp_path, plan):
    experiment = ExperimentConfig(plan=plan)
    open_sweep_folder(tmp_path / "new", document(tmp_path, experiment=experiment))
    open_sweep_folder(tmp_path / "new", document(tmp_path, experiment=experiment))
    moved = override_fields(experiment, {"data.data_dir": "/elsewhere"})
    open_sweep_folder(tmp_path / "new", document(tmp_path, experiment=moved))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": "plan.batch_size=24"}, "other points"),
        ({"seeds": (0, 1)}, "other seeds"),
        ({"experiment": override_fields(EXPERIMENT, {"model.width": 4})}, "model.width: 4 instead of None"),
        (
            {"experiment": override_fields(EXPERIMENT, {"plan.strategy": "baseline"})},
            "plan.strategy: 'baseline' instead of",
        ),
        (
            {"experiment": override_fields(EXPERIMENT, {"plan.strategy": single_set})},
            "plan.strategy: 'single_set' instead",
        ),
    ],
)
def test_another_sweep_is_refused(tmp_path, changes, message):
    open_sweep_folder(tmp_path, document(tmp_path))
    with pytest.raises(InputError, match="holds another sweep") as caught:
        open_sweep_folder(tmp_path, document(tmp_path, **changes))
    assert message in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "damaged"])
def test_a_damaged_folder_is_reported(tmp_path, content):
    expected = document(tmp_path)
    damaged = json.dumps({**expected, "experiment": {"plan": 3}}) if content == "damaged" else content
    (tmp_path / SWEEP_FILE).write_text(damaged)
    with pytest.raises(InputError, match=r"is damaged|does not fit"):
        open_sweep_folder(tmp_path, expected)


def test_commands_that_start_at_once_share_a_folder(tmp_path):
    """One of them is just writing the document."""
    (tmp_path / f".{SWEEP_FILE}.12.34.tmp").write_text("{")
    open_sweep_folder(tmp_path, document(tmp_path))
    assert (tmp_path / SWEEP_FILE).exists()


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is not empty and holds no sweep"):
        open_sweep_folder(tmp_path, document(tmp_path))
