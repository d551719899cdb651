"""Sweeps: their points, folder and ranking, and a search with a made-up score in place of training."""

import dataclasses
import io
import json
import math
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stepwise_jax.cli.overrides import parse_fields
from stepwise_jax.cli.study_tables import print_results
from stepwise_jax.errors import InputError, InterruptedRunError, StepwiseError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.serialization import field_type, override_fields
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies import search, sweep_run
from stepwise_jax.studies.jobs import Failure, Job
from stepwise_jax.studies.sweep import (
    BEST_FOLDER,
    RESULTS_FILE,
    SWEEP_FILE,
    Point,
    Sweep,
    examples_without_validation,
    figure1_points,
    open_sweep_folder,
    parse_grid,
    point_arguments,
    point_name,
    rank_points,
    sweep_to_dict,
)
from stepwise_jax.workdir.files import CONFIG, SUMMARY
from stepwise_jax.workdir.folder import config_document

EXPERIMENT = ExperimentConfig()
M = 1000


def parsed(fields: Sequence[str]) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
    experiment = parse_fields(EXPERIMENT, list(fields), "test")
    return experiment, make_plan(experiment.plan, M, experiment.optimizer)


def planned(fields: Sequence[str]) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
    """As `parsed`, at once: fields of one word each."""
    changes = {name.removeprefix("--"): word for name, word in zip(fields[::2], fields[1::2], strict=True)}
    experiment = override_fields(EXPERIMENT, {name: value_of(name, word) for name, word in changes.items()})
    return experiment, make_plan(experiment.plan, M, experiment.optimizer)


def value_of(name: str, word: str) -> Any:
    hint = field_type(name)
    return (float(word),) if typing.get_origin(hint) is tuple else hint(word) if hint in (int, float) else word


def make_sweep(root: Path, seeds: Sequence[int] = (0,), experiment: ExperimentConfig = EXPERIMENT) -> Sweep:
    return Sweep(root, experiment, tuple(seeds), ("launch", "train", "mine.py"), planned)


# Points


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


# Runs


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


def finish(folder: Path, top1: float) -> None:
    folder.mkdir(parents=True)
    reached = {"top1": top1, "top5": 1.0, "best_top1": top1, "samples": 10_000, "updates": 100, "seconds": {}}
    (folder / SUMMARY).write_text(json.dumps(reached))


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


# The folder


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
def test_a_sweep_goes_on_in_its_folder(tmp_path, plan):
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


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is not empty and holds no sweep"):
        open_sweep_folder(tmp_path, document(tmp_path))


# Execution, with a score in place of training


class Trainer:
    """Finishes every run with a score that is a function of its fields; the names in `fails` fail."""

    def __init__(self, fails: Sequence[str] = (), stop_after: float = math.inf):
        self.trained: list[str] = []
        self.fails, self.stop_after = fails, stop_after

    def __call__(self, jobs: Sequence[Job]) -> list[Failure]:
        failures = []
        for job in jobs:
            if job.done:
                continue
            if len(self.trained) >= self.stop_after:
                raise InterruptedRunError("stopped")
            self.trained.append(job.name)
            if any(name in job.name for name in self.fails):
                failures.append(Failure(job, 3, "the loss is not finite"))
                continue
            fields, stages = planned(job.command[5:])
            distance = abs(math.log(fields.plan.learning_rate / 0.003)) + abs(math.log2(fields.plan.batch_size / 48))
            finish(job.folder, 1 / (1 + distance))
            whole = dataclasses.replace(fields, steps_per_call=1)
            (job.folder / CONFIG).write_text(json.dumps(config_document(whole, stages, "mine.py", None, "1 x cpu")))
        return failures


GRID = ["plan.batch_size=24,48", "plan.learning_rate=0.1,0.003"]


def test_a_grid_is_ranked_and_its_best_tested_once(tmp_path):
    sweep, train = make_sweep(tmp_path), Trainer(fails=["batch_size=24,plan.learning_rate=0.1"])
    results = sweep_run.run_grid(sweep, parse_grid(EXPERIMENT, GRID), train)
    assert results["best"] == {"plan.batch_size": "48", "plan.learning_rate": "0.003"}
    assert [each["top1"] for each in results["points"]] == sorted((e["top1"] for e in results["points"]), reverse=True)
    assert len(results["points"]) == 3
    assert [each["message"] for each in results["failures"]] == ["the loss is not finite"]
    assert len([name for name in train.trained if name.startswith(BEST_FOLDER)]) == 1
    assert json.loads((tmp_path / RESULTS_FILE).read_text()) == results
    again = Trainer()
    assert not sweep_run.run_grid(sweep, parse_grid(EXPERIMENT, GRID), again)["failures"]
    assert again.trained == ["plan.batch_size=24,plan.learning_rate=0.1, seed 0"]


def test_no_score_at_all_is_reported(tmp_path):
    with pytest.raises(StepwiseError, match=r"no point of the sweep could be scored: .*the loss is not finite"):
        sweep_run.run_grid(make_sweep(tmp_path), parse_grid(EXPERIMENT, GRID), Trainer(fails=["seed"]))


def test_results_are_shown_with_every_field_that_varies(tmp_path):
    stream = io.StringIO()
    train = Trainer(fails=["plan.batch_size=96", BEST_FOLDER])
    results = sweep_run.run_grid(make_sweep(tmp_path), figure1_points(EXPERIMENT), train)
    print_results(results, stream)
    output = stream.getvalue()
    for text in (
        "fractions",
        "batch_size",
        "learning_rate",
        "held-out top-1",
        "best of 11 points",
        "its test run failed",
    ):
        assert text in output
    assert "FAILED: plan.strategy=single_set" in output


# The search


def space(
    samples: int | None = None, experiment: ExperimentConfig = EXPERIMENT, examples: int = M
) -> search.SearchSpace:
    return search.make_space(experiment, examples, samples)


def test_the_space_lies_around_the_experiment():
    found = space()
    assert found.samples == 60 * M
    assert found.fractions == (0.2, 0.4, 0.6, 0.8, 1.0)
    assert found.batch_sizes == (12, 24, 48, 72, 96)
    assert found.learning_rates == pytest.approx((0.001 / 30, 0.03))
    assert space(500).fractions == (0.2, 0.4)
    assert space(examples=250).batch_sizes == (12, 24, 48)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"samples": 199}, "--samples is 199: it must be at least 200"),
        ({"experiment": ExperimentConfig(plan=PlanConfig(milestones=(5,)))}, "plan.milestones is (5,)"),
        (
            {"experiment": ExperimentConfig(plan=PlanConfig(batch_size=402))},
            "plan.batch_size is 402: it must be at most 400",
        ),
    ],
)
def test_spaces_that_are_none(fields, message):
    with pytest.raises(InputError) as caught:
        space(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize("samples", [200, 777, 1000, 12_345])
@pytest.mark.parametrize("fractions", [(0.2, 0.4, 1.0), (1 / 3, 2 / 3, 1.0)])
def test_every_point_keeps_the_budget(samples, fractions):
    plan = PlanConfig(fractions=fractions, batch_multipliers=(1, 1, 1))
    found = space(max(samples, 334), ExperimentConfig(plan=plan))
    for fraction in found.fractions:
        values = {"fraction": fraction, "batch_size": 12, "learning_rate": 0.0123456789}
        (stage,) = planned(point_arguments(search.make_point(found, values)))[1]
        assert stage.samples <= found.samples < stage.samples + stage.examples
        assert stage.milestones == ((math.ceil(stage.epochs / 2),) if stage.epochs > 1 else ())


class Scorer:
    """Scores points by a closed form, as many as it may before it is stopped."""

    def __init__(self, stop_after: float = math.inf, fails: bool = False):
        self.seen: list[str] = []
        self.at_once: list[int] = []
        self.stop_after, self.fails = stop_after, fails

    def __call__(self, points: Sequence[Point]) -> list[float | None]:
        if len(self.seen) + len(points) > self.stop_after:
            raise InterruptedRunError("stopped")
        self.seen += [point_name(point) for point in points]
        self.at_once.append(len(points))
        return [None if self.fails else -abs(math.log(float(point["plan.learning_rate"]) / 0.003)) for point in points]


def study(folder: Path, seed: int = 0, **fields) -> search.Search:
    pytest.importorskip("optuna")
    return search.Search(space(**fields), folder, seed)


def test_a_search_takes_as_many_points_as_it_may(tmp_path):
    score = Scorer()
    search.run(study(tmp_path), 7, 3, score)
    assert (len(score.seen), score.at_once) == (7, [3, 3, 1])
    assert len(set(score.seen)) == 7
    found = study(tmp_path)
    assert (found.count(), len(found.scored_points()), found.running_points()) == (7, 7, [])
    search.run(found, 7, 3, score)
    assert len(score.seen) == 7
    search.run(study(tmp_path), 9, 3, score)
    assert len(set(score.seen)) == 9


def test_a_stopped_search_takes_up_what_was_asked_for(tmp_path):
    first = Scorer(stop_after=4)
    with pytest.raises(InterruptedRunError):
        search.run(study(tmp_path), 8, 2, first)
    left = [point_name(point) for _, point in study(tmp_path).running_points()]
    assert len(left) == 2
    second = Scorer()
    search.run(study(tmp_path), 8, 2, second)
    assert second.seen[:2] == left
    assert len({*first.seen, *second.seen}) == len(first.seen + second.seen) == 8


def test_a_search_does_not_depend_on_where_it_was_stopped(tmp_path):
    for name in ("through", "stopped"):
        (tmp_path / name).mkdir()
    through, stopped, rest = Scorer(), Scorer(stop_after=5), Scorer()
    search.run(study(tmp_path / "through"), 14, 1, through)
    with pytest.raises(InterruptedRunError):
        search.run(study(tmp_path / "stopped"), 14, 1, stopped)
    search.run(study(tmp_path / "stopped"), 14, 1, rest)
    assert stopped.seen + rest.seen == through.seen


def test_failed_points_count_and_have_no_score(tmp_path):
    score = Scorer(fails=True)
    search.run(study(tmp_path), 3, 2, score)
    found = study(tmp_path)
    assert (found.count(), found.scored_points(), found.running_points()) == (3, [], [])


def test_a_damaged_journal_is_reported(tmp_path):
    search.run(study(tmp_path), 2, 1, Scorer())
    (tmp_path / search.JOURNAL).write_text('"nonsense"\n')
    with pytest.raises(InputError, match="journal is damaged"):
        study(tmp_path)


def test_a_search_whose_best_changes_tests_the_new_one(tmp_path):
    sweep = make_sweep(tmp_path)
    few = sweep_run.run_search(sweep, study(tmp_path), 2, 1, Trainer())
    many = sweep_run.run_search(sweep, study(tmp_path), 25, 1, Trainer())
    assert len(many["points"]) == 25
    assert many["best"] != few["best"]
    for results in (few, many):
        assert results["test"]["top1"] == results["points"][0]["top1"]


def test_without_optuna_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"a search needs Optuna: pip install 'stepwise-jax\[sweep\]', or give --grid"):
        search.load_optuna()
