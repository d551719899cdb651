"""The points of a sweep, their runs, and their ranking."""

import dataclasses
from collections.abc import Sequence

import pytest

from stepwise_jax.cli.parsing.overrides import parse_fields
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.sweep import (
    BEST_FOLDER,
    Point,
    examples_without_validation,
    figure1_points,
    parse_grid,
    point_arguments,
    point_name,
    rank_points,
)
from stepwise_jax.workdir.files import SUMMARY
from tests.studies.example_sweep import EXPERIMENT, M, finish, make_sweep, planned


def parsed(fields: Sequence[str]) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
    experiment = parse_fields(EXPERIMENT, list(fields), "test")
    return experiment, make_plan(experiment.plan, M, experiment.optimizer)


def test_a_grid_is_every_combination():
    points = parse_grid(EXPERIMENT, ["plan.batch_size=24, 48", "plan.learning_rate=0.1,0.01,0.001"])
    assert len(points) == 6
    assert points[0] == {"plan.batch_size": "24", "plan.learning_rate": "0.1"}
    assert len({point_name(point) for point in points}) == 6
    assert point_arguments(points[-1]) == ("--plan.batch_size", "48", "--plan.learning_rate", "0.001")


def test_values_of_several_words():
    (point,) = parse_grid(EXPERIMENT, ["plan.fractions=0.5 1"])
    assert point_arguments(point) == ("--plan.fractions", "0.5", "1")
    assert point_name(point) == "plan.fractions=0.5-1"


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        (["plan.batchsize=1,2"], "a dotted name of the experiment"),
        (["plan.batch_size"], "different values"),
        (["plan.batch_size="], "different values"),
        (["plan.batch_size=24,24"], "different values"),
        (["plan.batch_size=24", "plan.batch_size=48"], "a field that no other --grid has"),
        (["figure1", "plan.batch_size=24"], "a dotted name"),
        (["seed=1,2"], "--seeds says how many"),
        (["data.validation_fraction=0.0,0.1"], "every point is scored on the same images"),
        (["evaluation.every_epochs=1,2"], "at the end of its stages"),
    ],
)
def test_grids_that_are_none(grids, message):
    with pytest.raises(InputError, match="--grid is") as caught:
        parse_grid(EXPERIMENT, grids)
    assert message in str(caught.value)


def test_figure_1_goes_along_three_axes():
    points = parse_grid(EXPERIMENT, ["figure1"])
    assert points == figure1_points(EXPERIMENT)
    plans = [planned(point_arguments(point))[1] for point in points]
    assert all(len(stages) == 1 for stages in plans)
    seen = [(stage.examples, stage.batch_size, stage.learning_rate) for (stage,) in plans]
    assert len(set(seen)) == len(seen) == 12
    assert {size for size, b, rate in seen if (b, rate) == (24, 0.001)} == {200, 400, 600, 800, 1000}
    assert {b for size, b, rate in seen if (size, rate) == (200, 0.001)} == {12, 24, 48, 72, 96}
    assert {rate for size, b, rate in seen if (size, b) == (1000, 24)} == {0.1, 0.01, 0.001, 0.0001}
    assert all((stage.epochs, stage.milestones) == (20, (10,)) for (stage,) in plans)


def test_points_are_scored_on_held_out_images_and_the_best_is_tested(tmp_path):
    sweep = make_sweep(tmp_path, seeds=(3, 4))
    first, second = sweep.jobs({"plan.batch_size": "48"})
    assert (first.folder, second.folder) == tuple(tmp_path / "plan.batch_size=48" / f"seed{seed}" for seed in (3, 4))
    assert first.command[:3] == ("launch", "train", "mine.py")
    fields, _ = planned(first.command[5:])
    assert (fields.data.validation_fraction, fields.plan.batch_size, fields.seed) == (0.1, 48, 3)
    assert fields.evaluation.every_epochs == 20
    final = sweep.final_job({"plan.batch_size": "48"})
    fields, _ = planned(final.command[5:])
    assert (fields.data.validation_fraction, fields.plan.batch_size, fields.seed) == (0.0, 48, 3)
    assert final.folder == tmp_path / BEST_FOLDER / "plan.batch_size=48" / "seed3"


def test_the_configurations_own_share_is_held_out(tmp_path):
    own = override_fields(EXPERIMENT, {"data.validation_fraction": 0.25})
    (job,) = make_sweep(tmp_path, experiment=own).jobs({})
    assert job.command[job.command.index("--data.validation_fraction") + 1] == "0.25"


def test_a_point_whose_fields_do_not_go_together_is_named(tmp_path):
    sweep = dataclasses.replace(make_sweep(tmp_path), planner=parsed)
    with pytest.raises(InputError, match=r"point plan\.batch_size=500: batch_size of stage 1"):
        sweep.jobs({"plan.batch_size": "500"})
    with pytest.raises(InputError, match=r"point plan\.batch_size=many: --plan\.batch_size is 'many'"):
        sweep.jobs({"plan.batch_size": "many"})
    assert sweep.jobs({"plan.batch_size": "48"}) == make_sweep(tmp_path).jobs({"plan.batch_size": "48"})


def test_images_left_for_training():
    assert examples_without_validation(EXPERIMENT, 1437) == 1437 - 144
    # Sizes of these are without what is held out already.
    assert examples_without_validation(override_fields(EXPERIMENT, {"data.validation_fraction": 0.5}), 700) == 700
    assert examples_without_validation(override_fields(EXPERIMENT, {"data.train_examples": 500}), 500) == 500


def test_ranking(tmp_path):
    points: list[Point] = [{"plan.batch_size": str(b)} for b in (1, 2, 3, 4)]
    for point, scores in zip(points, [(0.5, 0.7), (0.8, 0.6), (0.6, 0.6), (0.9,)], strict=True):
        for seed, top1 in enumerate(scores):
            finish(tmp_path / point_name(point) / f"seed{seed}", top1)
    found = rank_points(tmp_path, points, (0, 1))
    # The last has not all its seeds; the first and third are equal.
    assert [each.point["plan.batch_size"] for each in found] == ["2", "1", "3"]
    assert found[0].top1 == pytest.approx(0.7)
    assert found[0].by_seed == (0.8, 0.6)
    (tmp_path / point_name(points[0]) / "seed0" / SUMMARY).write_text('{"top1": null}')
    with pytest.raises(InputError, match=r"summary\.json is damaged"):
        rank_points(tmp_path, points, (0, 1))
