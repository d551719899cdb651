"""Tuning: the grid, its runs, their scores, and what is said about them."""

import dataclasses
import json
from collections.abc import Sequence

import pytest

from stepwise_jax.errors import InputError, StepwiseError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.studies import tuning
from stepwise_jax.studies.comparison import Arm, Protocol, choose_arms
from stepwise_jax.studies.jobs import Failure
from stepwise_jax.workdir.files import SUMMARY
from tests.studies.example_comparison import EXPERIMENT, own

ARMS = choose_arms(["stepwise", "baseline"], "mine.py", EXPERIMENT, {})
CENTRE = EXPERIMENT.plan.learning_rate


def plan(arm: Arm, arguments: Sequence[str], experiment: ExperimentConfig = EXPERIMENT):
    changes = dict(zip(arguments[::2], arguments[1::2], strict=True))
    rate = float(changes.get("--plan.learning_rate", CENTRE))
    made = override_fields(experiment, {**arm.changes, "plan.learning_rate": rate})
    return made, make_plan(made.plan, 1000, made.optimizer)


def jobs_in(root, arms=ARMS, trials=3):
    return tuning.tuning_jobs(
        root, arms, Protocol(tune_trials=trials), plan, ("python", "launch.py"), ("--data.root", "/x")
    )


def score(jobs, *scores):
    for job, top1 in zip(jobs.values(), scores, strict=True):
        if top1 is not None:
            job.folder.mkdir(parents=True)
            document = {"top1": top1, "best_top1": top1, "samples": 1, "updates": 1, "seconds": {}}
            (job.folder / SUMMARY).write_text(json.dumps(document))


@pytest.fixture(autouse=True)
def any_finished_run(monkeypatch):
    monkeypatch.setattr(tuning, "check_finished_run", lambda *_: None)


def test_the_grid_doubles_around_its_centre():
    assert tuning.rate_grid(0.2, 5) == (0.05, 0.1, 0.2, 0.4, 0.8)
    assert tuning.rate_grid(0.1, 4) == (0.025, 0.05, 0.1, 0.2)
    assert tuning.rate_grid(1 / 3, 3) == (0.166667, 0.333333, 0.666667)


def test_every_arm_has_the_same_number_of_runs_on_held_out_images(tmp_path):
    jobs = jobs_in(tmp_path, trials=5)
    assert [len(of_arm) for of_arm in jobs.values()] == [5, 5]
    job = jobs["baseline"][2 * CENTRE]
    assert job.folder == tmp_path / "tuning" / "baseline" / "learning_rate=0.002"
    given = dict(zip(job.command[4::2], job.command[5::2], strict=True))
    assert job.command[:4] == ("python", "launch.py", "train", "mine.py")
    assert given["--data.validation_fraction"] == "0.1"
    assert given["--seed"] == "4294967295"
    assert given["--plan.learning_rate"] == "0.002"
    assert given["--plan.strategy"] == "baseline"
    assert given["--data.root"] == "/x"


def test_the_best_rate_becomes_the_arms_change(tmp_path):
    jobs = jobs_in(tmp_path)
    score(jobs["stepwise"], 0.5, 0.7, 0.6)
    score(jobs["baseline"], 0.8, 0.7, 0.8)
    tuned = tuning.tune(jobs, lambda _: [])
    # The lower of two equal ones.
    assert [arm.best.learning_rate for arm in tuned.values()] == [CENTRE, CENTRE / 2]
    assert [arm.at_edge for arm in tuned.values()] == [False, True]
    arms = tuning.tune_arms(ARMS, tuned)
    assert arms[1].arguments()[-2:] == ("--plan.learning_rate", "0.0005")
    text = tuning.describe_tuning(tuned)
    assert "At the edge of its grid, so that a rate beyond it may be better: baseline (0.0005)." in text
    samples = sum(job.samples for of_arm in jobs.values() for job in of_arm.values())
    assert f"The tuning fed {samples:,} samples" in text
    assert tuning.tuning_rows(tuned)[0][1:4] == ("0.0005, 0.001, 0.002", "50.00, 70.00, 60.00", "0.001")
    assert tuning.tuning_from_dict(json.loads(json.dumps(tuning.tuning_to_dict(tuned)))) == tuned


def test_a_rate_at_which_the_loss_is_not_finite_has_no_score(tmp_path):
    jobs = jobs_in(tmp_path, ARMS[:1])
    score(jobs["stepwise"], 0.5, 0.6, None)
    diverged = Failure(jobs["stepwise"][2 * CENTRE], 3, "the loss is nan")
    tuned = tuning.tune(jobs, lambda _: [diverged])["stepwise"]
    assert tuned.best.learning_rate == CENTRE
    assert tuning.tuning_rows({"stepwise": tuned})[0][2] == "50.00, 60.00, –"
    with pytest.raises(StepwiseError, match=r"learning rate 0\.002 failed: no space"):
        tuning.tune(jobs, lambda _: [dataclasses.replace(diverged, status=1, message="no space")])


def test_an_arm_without_any_score_is_an_error(tmp_path):
    with pytest.raises(StepwiseError, match="stepwise: the loss was not finite at any learning rate"):
        tuning.tune(jobs_in(tmp_path), lambda _: [])


def test_nothing_tuned_has_nothing_to_say():
    assert tuning.describe_tuning({}) == ""
    assert tuning.tune_arms(ARMS, {}) == ARMS
    assert tuning.tuning_from_dict(None) == {}


def test_an_arm_that_ignores_the_rate_is_refused(tmp_path):
    def fixed(arm: Arm, arguments: Sequence[str]):
        return plan(arm, arguments, ExperimentConfig(plan=PlanConfig(strategy=own)))

    arm = Arm("own", "", "mine.py", {})
    with pytest.raises(InputError, match=r"strategy own ignores plan\.learning_rate"):
        tuning.tuning_jobs(tmp_path, [arm], Protocol(tune_trials=3), fixed, (), ())


@pytest.mark.parametrize(
    ("trials", "fields", "seeds", "message"),
    [
        (2, {}, (0,), "--tune-trials is 2: it must be from 3 to 99"),
        (-1, {}, (0,), "--tune-trials is -1"),
        (3, {"data.validation_fraction": 0.2}, (0,), "data.validation_fraction is 0.2"),
        (3, {}, (2**32 - 1,), "--seed is 4294967295: it must be another seed"),
    ],
)
def test_a_tuning_that_cannot_be_is_refused(trials, fields, seeds, message):
    with pytest.raises(InputError, match=message):
        tuning.check_tuning(trials, override_fields(EXPERIMENT, fields), seeds)
