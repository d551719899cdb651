"""A search by Optuna: its space, its budget, and its journal, with a made-up score in place of training."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from stepwise_jax.errors import InputError, InterruptedRunError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.studies import search, sweep_run
from stepwise_jax.studies.sweep import (
    Point,
    point_arguments,
    point_name,
)
from tests.studies.example_sweep import EXPERIMENT, M, Trainer, make_sweep, planned


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


def test_a_stopped_search_resumes_with_the_points_that_were_running(tmp_path):
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
