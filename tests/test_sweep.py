"""A sweep's points, its order of merit, its folder, and a search that can be stopped anywhere."""

import dataclasses
import io

import pytest

from stepwise_jax import search, sweep, sweep_run
from stepwise_jax.cells import Cell, Failure
from stepwise_jax.command_line import load_config, parse_fields
from stepwise_jax.documents import write_json
from stepwise_jax.errors import InputError, StepwiseError
from stepwise_jax.stages import make_plan
from stepwise_jax.sweep import Sweep, parse_grid, point_name

DIGITS = load_config("configs/digits.py")


def planned(words):
    experiment = parse_fields(DIGITS, words, "test")
    return experiment, make_plan(experiment.plan, experiment.optimizer, 1437)


def make_sweep(root, seeds=(0,)) -> Sweep:
    return Sweep(root, DIGITS, seeds, ("launch", "train", "configs/digits.py"), planned)


def test_a_grid_is_every_combination():
    points = parse_grid(DIGITS, ["plan.batch_size=16,32", "plan.learning_rate=0.1, 0.2"])
    assert [tuple(point.values()) for point in points] == [("16", "0.1"), ("16", "0.2"), ("32", "0.1"), ("32", "0.2")]
    assert point_name(points[0]) == "plan.batch_size=16,plan.learning_rate=0.1"


@pytest.mark.parametrize(
    "word", ["plan.batch=1", "plan.batch_size", "plan.batch_size=", "plan.batch_size=1,1", "figure2"]
)
def test_a_grid_of_another_form_is_refused(word):
    with pytest.raises(InputError, match="--grid is"):
        parse_grid(DIGITS, [word])


def test_the_grids_of_figure_1():
    points = parse_grid(load_config("configs/cifar100_resnet50.py"), ["figure1"])
    column = [
        [point.get(name) for point in points] for name in ("plan.fractions", "plan.batch_size", "plan.learning_rate")
    ]
    assert column[0][:5] == ["0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [size for size in column[1] if size] == ["12", "48", "96"]
    assert [rate for rate in column[2] if rate] == ["0.1", "0.01", "0.001", "0.0001"]
    assert len({point_name(point) for point in points}) == len(points)


def test_a_points_run_is_scored_on_held_out_images_at_its_end(tmp_path):
    (run,) = make_sweep(tmp_path).cells({"plan.strategy": "baseline", "plan.batch_size": "32"})
    words = " ".join(run.command)
    assert "--data.validation_fraction 0.1 --evaluation.every_epochs 50 --plan.strategy baseline" in words
    assert run.folder == tmp_path / "plan.strategy=baseline,plan.batch_size=32" / "seed0"
    final = make_sweep(tmp_path).final_cell({"plan.strategy": "baseline"})
    assert "--data.validation_fraction 0.0 --evaluation.every_epochs 50" in " ".join(final.command)


def test_a_point_that_makes_no_plan_is_named(tmp_path):
    with pytest.raises(InputError, match=r"point plan.batch_size=5000: batch_size of stage 1"):
        make_sweep(tmp_path).cells({"plan.batch_size": "5000"})


def finish(run: Cell, top1: float) -> None:
    run.folder.mkdir(parents=True)
    write_json(run.folder / "summary.json", {"top1": top1, "top5": 1.0, "samples": 5, "updates": 2})


def test_the_best_mean_over_seeds_is_tested_once(tmp_path):
    scores = {"16": (0.5, 0.7), "32": (0.9, 0.1), "48": (0.6, 0.58)}
    points = parse_grid(DIGITS, ["plan.batch_size=16,32,48,64"])
    ran: list[str] = []

    def execute(runs):
        ran.extend(run.name for run in runs)
        for run in runs:
            size = run.folder.parent.name.removeprefix("plan.batch_size=")
            if size != "64":
                finish(run, 0.77 if size == "best" else scores[size][int(run.folder.name[-1])])
        return [Failure(run, 3, "the loss is nan") for run in runs if "64" in run.name]

    results = sweep_run.run_grid(make_sweep(tmp_path, seeds=(0, 1)), points, execute)
    assert [each["point"]["plan.batch_size"] for each in results["points"]] == ["16", "48", "32"]
    assert results["best"] == {"plan.batch_size": "16"}
    assert results["test"]["top1"] == 0.77
    assert ran[-1:] == ["best, seed 0"]
    assert [each["status"] for each in results["failures"]] == [3, 3]
    stream = io.StringIO()
    sweep_run.print_results(results, stream)
    assert "best of 3 points: plan.batch_size 16: test top-1 77.00 %" in " ".join(stream.getvalue().split())


def test_a_sweep_of_failures_says_why(tmp_path):
    points = parse_grid(DIGITS, ["plan.batch_size=16"])
    with pytest.raises(StepwiseError, match=r"no point of the sweep could be scored: .*: the loss is nan"):
        sweep_run.run_grid(make_sweep(tmp_path), points, lambda runs: [Failure(runs[0], 3, "the loss is nan")])


def test_another_sweep_is_refused(tmp_path):
    points = parse_grid(DIGITS, ["plan.batch_size=16"])
    document = sweep.describe(make_sweep(tmp_path), "configs/digits.py", points, None)
    for _ in range(2):
        sweep.open_folder(tmp_path / "s", document)
    with pytest.raises(InputError, match=r"another sweep \(seeds differ\)"):
        sweep.open_folder(tmp_path / "s", document | {"seeds": [0, 1]})
    other = dataclasses.replace(DIGITS, dtype="bfloat16")
    changed = sweep.describe(dataclasses.replace(make_sweep(tmp_path), experiment=other), "c", points, None)
    with pytest.raises(InputError, match="dtype: 'bfloat16' instead of 'float32'"):
        sweep.open_folder(tmp_path / "s", changed)
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "x").write_text("")
    with pytest.raises(InputError, match="holds no sweep"):
        sweep.open_folder(tmp_path / "file", document)


def space(samples: int | None = None) -> search.Space:
    return search.make_space(DIGITS, 1437, samples)


def test_no_point_of_a_search_costs_more_than_the_budget():
    found = space(5000)
    for fraction in found.fractions:
        point = search.point_of(found, {"fraction": fraction, "batch_size": 16, "learning_rate": 0.01})
        words = sweep.words(point)
        experiment, (stage,) = planned(words)
        assert stage.samples <= 5000 < stage.samples + stage.examples
        assert experiment.plan.strategy == "single_set"
    assert space().samples == sum(stage.samples for stage in planned(())[1])
    with pytest.raises(InputError, match="--samples is 200: it must be at least 287"):
        space(200)


def score_by_rate(points):
    return [1.0 - abs(float(point["plan.learning_rate"]) - 0.1) for point in points]


def test_a_search_asks_for_so_many_points_in_all(tmp_path):
    study = search.Search(space(), tmp_path, seed=0)
    search.run(study, 3, 2, score_by_rate)
    assert len(study.told()) == 3
    search.run(search.Search(space(), tmp_path, seed=0), 5, 2, score_by_rate)
    assert len(search.Search(space(), tmp_path, seed=0).told()) == 5


def test_points_that_were_under_way_are_taken_up_again(tmp_path):
    asked = search.Search(space(), tmp_path, seed=0).ask(2)
    scored = []

    def score(points):
        scored.append([dict(point) for point in points])
        return score_by_rate(points)

    again = search.Search(space(), tmp_path, seed=0)
    search.run(again, 2, 2, score)
    assert scored == [[dict(point) for _, point in asked]]
    assert again.count() == 2


def test_a_point_that_failed_has_no_score(tmp_path):
    study = search.Search(space(), tmp_path, seed=0)
    search.run(study, 2, 1, lambda points: [None])
    assert (study.told(), study.asked(), study.count()) == ([], [], 2)
