"""Tunes the arms of a comparison before it starts."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepwise_jax.cli import study_commands
from stepwise_jax.cli.comparisons.request import Request, arm_experiment
from stepwise_jax.data import datasets
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies import comparison, comparison_file, tuning
from stepwise_jax.studies.comparison import Arm
from stepwise_jax.studies.jobs import Job
from stepwise_jax.studies.tuning import TunedArm

Stages = Mapping[str, tuple[Stage, ...]]
"""By the arm's name."""

Trials = Mapping[str, Mapping[float, Job]]
"""Runs by the arm's name and the learning rate."""


def use_best_rates(asked: Request, stages: Stages, tuned: Mapping[str, TunedArm]) -> tuple[Request, Stages]:
    """The request and the stages of its arms, with the best learning rates of those that are tuned."""
    if not tuned:
        return asked, stages
    arms = tuning.tune_arms(asked.comparison.arms, tuned)
    experiments = {arm.name: arm_experiment(arm, asked.fields) for arm in arms}
    sizes = {name: datasets.sizes(each.data).train for name, each in experiments.items()}
    compared = replace(asked.comparison, arms=arms)
    return replace(asked, comparison=compared, experiments=experiments), comparison.make_plans(experiments, sizes)


def make_trials(asked: Request, folder: Path, recorded: Mapping[str, TunedArm], words: Sequence[str]) -> Trials:
    """The runs that tune the arms of which nothing is recorded; none without `--tune-trials`.

    Args:
      asked: the requested comparison.
      folder: of the comparison.
      recorded: the arms that are tuned.
      words: arguments of every run.
    """
    protocol = asked.comparison.protocol
    arms = [arm for arm in asked.comparison.arms if arm.name not in recorded] if protocol.tune_trials else []
    command = study_commands.launch_command()
    return tuning.tuning_jobs(folder, arms, protocol, _make_planner(asked.fields), command, words)


def _make_planner(fields: Sequence[str]) -> tuning.Planner:
    # The files of a folder are counted once, not for every learning rate.
    sizes = functools.cache(datasets.sizes)

    def plan(arm: Arm, arguments: Sequence[str]) -> tuple[ExperimentConfig, tuple[Stage, ...]]:
        experiment = arm_experiment(arm, fields, arguments)
        return experiment, make_plan(experiment.plan, sizes(experiment.data).train, experiment.optimizer)

    return plan


def tune(folder: Path, recorded: Mapping[str, TunedArm], trials: Trials, execute: tuning.Execute) -> Mapping[str, Any]:
    """Train the runs of `make_trials`, record their scores, and return all tuned arms."""
    if not trials:
        return recorded
    found = tuning.tune(trials, execute)
    comparison_file.update_document(folder, "tuning", tuning.tuning_to_dict({**recorded, **found}))
    return {**recorded, **found}
