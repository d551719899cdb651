"""Tunes the learning rate of every arm with the same budget, on held-out training images and a seed of its own.

The rates of an arm are powers of two around its own, so that a stopped tuning continues, and no arm has better luck
than another.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, NonFiniteLossError, StepwiseError, require
from stepwise_jax.experiment.config import MAX_SEED, ExperimentConfig
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.comparison import Arm, Protocol
from stepwise_jax.studies.jobs import Failure, Job
from stepwise_jax.studies.seeds import seed_arguments
from stepwise_jax.studies.sweep import VALIDATION_FRACTION, scoring_arguments
from stepwise_jax.workdir.folder import check_finished_run
from stepwise_jax.workdir.runs import read_summary

TUNING_FOLDER = "tuning"

TUNING_SEED = MAX_SEED
"""The largest seed, so that no comparison has it."""

Planner = Callable[[Arm, Sequence[str]], tuple[ExperimentConfig, tuple[Stage, ...]]]
"""A function of an arm and arguments `--FIELD VALUE ...` that returns its experiment with these, and its plan."""

Execute = Callable[[Sequence[Job]], Sequence[Failure]]
"""Trains jobs and returns those that failed."""


@dataclass(frozen=True)
class Trial:
    """One learning rate of one arm."""

    learning_rate: float
    top1: float | None
    """On the held-out images; None if the loss was not finite."""
    samples: int
    """Fed in training."""


@dataclass(frozen=True)
class TunedArm:
    """The trials of an arm, from the lowest learning rate to the highest."""

    name: str
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the highest score; the lowest learning rate of several."""
        return max(self.trials, key=lambda trial: -1.0 if trial.top1 is None else trial.top1)

    @property
    def at_edge(self) -> bool:
        """Whether the best learning rate is the lowest or the highest, so that one beyond may be better."""
        return self.best in (self.trials[0], self.trials[-1])


def rate_grid(learning_rate: float, trials: int) -> tuple[float, ...]:
    """Learning rates, each twice the one before, with `learning_rate` in the middle, to six digits."""
    return tuple(float(f"{learning_rate * 2.0 ** (index - trials // 2):.6g}") for index in range(trials))


def check_tuning(trials: int, experiment: ExperimentConfig, seeds: Sequence[int]) -> None:
    """Check that arms can be tuned.

    Raises:
      InputError: for too few trials, a comparison on held-out images, or the seed of the tuning.
    """
    if not trials:
        return
    require(3 <= trials <= 99, "--tune-trials", trials, "from 3 to 99, or 0 to tune nothing")
    if experiment.data.validation_fraction:
        raise InputError(
            f"--tune-trials {trials}: data.validation_fraction is {experiment.data.validation_fraction}, so the "
            "comparison itself is scored on the held-out images: leave one of them out"
        )
    require(TUNING_SEED not in seeds, "--seed", TUNING_SEED, "another seed: this one is for the tuning")


def tuning_jobs(
    root: Path,
    arms: Sequence[Arm],
    protocol: Protocol,
    planner: Planner,
    launcher: Sequence[str],
    fields: Sequence[str],
) -> dict[str, dict[float, Job]]:
    """The runs of each arm by learning rate.

    Args:
      root: the comparison's folder.
      arms: to tune.
      protocol: how many learning rates each arm has, and what the seed sets.
      planner: makes the experiment and the plan of a run.
      launcher: the words of the command before `train`.
      fields: command-line arguments that change fields of the configuration for every run.

    Raises:
      InputError: for an arm whose plan does not depend on the learning rate, or a finished run of another experiment.
    """
    jobs = {}
    for arm in arms:
        experiment, stages = planner(arm, ())
        command = (*launcher, "train", arm.config, *fields)
        arguments = {
            rate: _run_arguments(rate, stages, protocol.vary)
            for rate in rate_grid(experiment.plan.learning_rate, protocol.tune_trials)
        }
        planned = {rate: planner(arm, words) for rate, words in arguments.items()}
        if len({repr(stages) for _, stages in planned.values()}) < len(planned):
            raise InputError(f"strategy {arm.name} ignores plan.learning_rate: it cannot be tuned")
        jobs[arm.name] = {
            rate: _make_job(root, arm, rate, planned[rate], command, words) for rate, words in arguments.items()
        }
    return jobs


def _run_arguments(rate: float, stages: Sequence[Stage], vary: Sequence[str]) -> tuple[str, ...]:
    fixed = ("--plan.learning_rate", str(rate), *seed_arguments(vary, TUNING_SEED))
    return (*scoring_arguments(VALIDATION_FRACTION, stages), *fixed)


def _make_job(
    root: Path,
    arm: Arm,
    rate: float,
    planned: tuple[ExperimentConfig, tuple[Stage, ...]],
    command: Sequence[str],
    arguments: Sequence[str],
) -> Job:
    folder = root / TUNING_FOLDER / arm.name / f"learning_rate={rate:g}"
    experiment, stages = planned
    check_finished_run(folder, experiment, stages)
    return Job(
        name=f"tuning of {arm.name}, learning rate {rate:g}",
        folder=folder,
        command=(*command, "--workdir", str(folder), *arm.arguments(), *arguments),
        samples=sum(stage.updates * stage.batch_size for stage in stages),
    )


def tune(jobs: Mapping[str, Mapping[float, Job]], execute: Execute) -> dict[str, TunedArm]:
    """Train the trials of each arm and score them.

    Raises:
      StepwiseError: for a run that failed for another reason than its learning rate, or an arm without a score.
    """
    failures = execute([job for of_arm in jobs.values() for job in of_arm.values()])
    for failure in failures:
        if failure.status != NonFiniteLossError.status:
            raise StepwiseError(f"{failure.job.name} failed: {failure.message}")
    tuned = {name: TunedArm(name, tuple(map(_score, of_arm, of_arm.values()))) for name, of_arm in jobs.items()}
    for name, arm in tuned.items():
        if arm.best.top1 is None:
            raise StepwiseError(f"strategy {name}: the loss was not finite at any learning rate of its tuning")
    return tuned


def _score(rate: float, job: Job) -> Trial:
    return Trial(rate, float(read_summary(job.folder)["top1"]) if job.done else None, job.samples)


def tune_arms(arms: Sequence[Arm], tuned: Mapping[str, TunedArm]) -> tuple[Arm, ...]:
    """The arms with their best learning rates; an arm that is not tuned stays as it is."""
    return tuple(
        dataclasses.replace(arm, changes={**arm.changes, "plan.learning_rate": tuned[arm.name].best.learning_rate})
        if arm.name in tuned
        else arm
        for arm in arms
    )


def tuning_to_dict(tuned: Mapping[str, TunedArm]) -> dict[str, Any]:
    """The tuning as plain data for `comparison.json`."""
    return {
        "seed": TUNING_SEED,
        "validation_fraction": VALIDATION_FRACTION,
        "strategies": {
            name: {
                "trials": [dataclasses.asdict(trial) for trial in arm.trials],
                "learning_rate": arm.best.learning_rate,
                "at_edge": arm.at_edge,
            }
            for name, arm in tuned.items()
        },
    }


def tuning_from_dict(document: Mapping[str, Any] | None) -> dict[str, TunedArm]:
    """The tuning that `tuning_to_dict` wrote; empty for None.

    Raises:
      KeyError, TypeError, AttributeError: if the document is damaged.
    """
    strategies = {} if document is None else document["strategies"]
    return {
        name: TunedArm(name, tuple(Trial(**trial) for trial in each["trials"])) for name, each in strategies.items()
    }


TUNING_HEADER = ("strategy", "learning rates", "top-1 on held-out images (%)", "best", "samples fed")


def tuning_rows(tuned: Mapping[str, TunedArm]) -> list[tuple[str, ...]]:
    """One row for each arm, under `TUNING_HEADER`."""
    return [
        (
            name,
            ", ".join(f"{trial.learning_rate:g}" for trial in arm.trials),
            ", ".join("–" if trial.top1 is None else f"{100 * trial.top1:.2f}" for trial in arm.trials),
            f"{arm.best.learning_rate:g}",
            f"{sum(trial.samples for trial in arm.trials):,}",
        )
        for name, arm in tuned.items()
    ]


def describe_tuning(tuned: Mapping[str, TunedArm]) -> str:
    """How the arms were tuned, in one paragraph; empty where they were not."""
    if not tuned:
        return ""
    samples = sum(trial.samples for arm in tuned.values() for trial in arm.trials)
    trials = max(len(arm.trials) for arm in tuned.values())
    edges = [f"{name} ({arm.best.learning_rate:g})" for name, arm in tuned.items() if arm.at_edge]
    edge = f" At the edge of its grid, so that a rate beyond it may be better: {', '.join(edges)}." if edges else ""
    return (
        f"Each strategy has the best of {trials} learning rates, by top-1 on {100 * VALIDATION_FRACTION:g} % held out "
        f"of the training images and with a seed of its own. The tuning fed {samples:,} samples.{edge}"
    )
