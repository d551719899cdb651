"""The finished runs of a comparison are paired by seed; damaged and foreign ones are named."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies import comparison_folder
from stepwise_jax.studies.comparison_folder import arm_differences, read_finished_runs
from stepwise_jax.studies.variants import VARIANTS
from stepwise_jax.workdir.files import CONFIG, PREDICTIONS, SUMMARY
from stepwise_jax.workdir.folder import config_document
from tests.studies.example_comparison import EXPERIMENT, compared, finish, plans_of


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
