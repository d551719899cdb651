"""The folder of a comparison: its document, its finished runs, and their paired differences."""

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import experiment_from_dict_by_name, experiment_to_dict
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.comparison import Arm, Comparison
from stepwise_jax.studies.jobs import Failure
from stepwise_jax.studies.statistics.paired import Difference, paired_differences
from stepwise_jax.workdir.files import PREDICTIONS, SUMMARY, open_file
from stepwise_jax.workdir.folder import check_finished_run, conflicting_fields
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.runs import read_summary

COMPARISON_FILE, FAILURES_FILE = "comparison.json", "failures.json"


def check_finished_runs(
    comparison: Comparison,
    root: Path,
    experiments: Mapping[str, ExperimentConfig],
    stages: Mapping[str, tuple[Stage, ...]],
) -> None:
    """Check that the runs that are already finished are the ones that would be trained now.

    Args:
      comparison: the comparison.
      root: its folder, which need not exist yet.
      experiments: by the arm's name.
      stages: of each arm.

    Raises:
      InputError: naming a run of another experiment, and how it differs.
    """
    for arm in comparison.arms:
        for seed in comparison.seeds:
            experiment = dataclasses.replace(experiments[arm.name], seed=seed)
            check_finished_run(comparison.run_folder(root, arm.name, seed), experiment, stages[arm.name])


def open_comparison_folder(root: Path, comparison: Comparison) -> Comparison:
    """Create the folder, or continue the comparison in it.

    Returns:
      The comparison; an existing one keeps its arms and seeds and gains the new ones.

    Raises:
      InputError: if the folder holds something else, or a comparison of another experiment.
    """
    path = root / COMPARISON_FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        if path.exists():
            comparison = _merge(read_comparison(root), comparison, root)
        elif any(root.iterdir()):
            raise InputError(f"--workdir {root} is not empty and holds no comparison: name a new folder")
        write_json(path, _comparison_to_dict(comparison))
    except OSError as error:
        raise InputError(f"--workdir {root} cannot be written: {error.strerror}") from error
    return comparison


def _merge(before: Comparison, now: Comparison, root: Path) -> Comparison:
    set_by_arms = ("plan.strategy:", "plan.staged:", "seed:")
    conflicts = conflicting_fields(now.experiment, before.experiment)
    conflicts = [conflict for conflict in conflicts if not conflict.startswith(set_by_arms)]
    known = {arm.name: arm for arm in before.arms}
    conflicts += [
        f"strategy {arm.name}: other fields"
        for arm in now.arms
        if arm.name in known and dict(known[arm.name].changes) != dict(arm.changes)
    ]
    if conflicts:
        raise InputError(f"{root} holds another comparison ({'; '.join(conflicts)}): use another folder for this one")
    added = tuple(arm for arm in now.arms if arm.name not in known)
    seeds = tuple(sorted({*before.seeds, *now.seeds}))
    return dataclasses.replace(now, arms=(*before.arms, *added), seeds=seeds)


def _comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "config": comparison.config,
        "experiment": experiment_to_dict(comparison.experiment),
        "seeds": list(comparison.seeds),
        "strategies": [
            {"name": arm.name, "title": arm.title, "config": arm.config, "changes": dict(arm.changes)}
            for arm in comparison.arms
        ],
    }


def read_comparison(root: Path) -> Comparison:
    """Read the comparison in a folder.

    Raises:
      InputError: where there is none, or its document is damaged.
    """
    document = read_json(root / COMPARISON_FILE)
    try:
        arms = tuple(_arm_from_dict(**arm) for arm in document["strategies"])
        seeds = tuple(int(seed) for seed in document["seeds"])
        if len(arms) < 2 or not seeds:
            raise ValueError("nothing is compared")
        experiment = experiment_from_dict_by_name(document["experiment"])
        return Comparison(str(document["config"]), experiment, arms, seeds)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{root / COMPARISON_FILE} is damaged: it is JSON, but no comparison") from error


def _arm_from_dict(name: str, title: str, config: str, changes: Mapping[str, Any]) -> Arm:
    return Arm(str(name), str(title), str(config), dict(changes))


def write_failures(root: Path, failures: Sequence[Failure]) -> None:
    """Record which runs failed in the last attempt, and why."""
    write_json(root / FAILURES_FILE, {"failures": [failure.to_dict() for failure in failures]})


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of a comparison."""

    summary: Mapping[str, Any]
    correct: np.ndarray
    """Whether each test image was classified correctly, bool [N]."""
    ids: tuple[str, ...]


def read_finished_runs(comparison: Comparison, root: Path) -> dict[str, dict[int, FinishedRun]]:
    """Read the finished runs, by arm and seed."""
    runs: dict[str, dict[int, FinishedRun]] = {}
    for arm in comparison.arms:
        folders = {seed: comparison.run_folder(root, arm.name, seed) for seed in comparison.seeds}
        finished = {seed: folder for seed, folder in folders.items() if (folder / SUMMARY).exists()}
        runs[arm.name] = {seed: _read_finished_run(folder) for seed, folder in finished.items()}
    return runs


def _read_finished_run(folder: Path) -> FinishedRun:
    summary = read_summary(folder)
    try:
        # Opened here because NumPy does not close a file that it opened itself and cannot read.
        with open_file(folder / PREDICTIONS) as file, np.load(file, allow_pickle=False) as stored:
            ids, labels, probabilities = stored["ids"], stored["labels"], stored["probabilities"]
            return FinishedRun(summary, probabilities.argmax(1) == labels, tuple(ids.tolist()))
    # NumPy raises all of these for a file that is torn, cut short, or no archive at all.
    except (OSError, ValueError, KeyError, TypeError, EOFError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{folder / PREDICTIONS} is missing or damaged: train the run again") from error


def arm_differences(comparison: Comparison, runs: Mapping[str, Mapping[int, FinishedRun]]) -> tuple[Difference, ...]:
    """Compare the first arm with each of the others, over the seeds that both have finished."""
    reference, *others = (arm.name for arm in comparison.arms)
    scores = {name: {seed: run.summary["top1"] for seed, run in by_seed.items()} for name, by_seed in runs.items()}
    correct = {name: {seed: run.correct for seed, run in by_seed.items()} for name, by_seed in runs.items()}
    # Predictions can be compared image by image only where the images are the same.
    if len({run.ids for by_seed in runs.values() for run in by_seed.values()}) != 1:
        correct = {name: {} for name in runs}
    return paired_differences(
        scores[reference],
        {name: scores[name] for name in others},
        {name: correct[name] for name in others},
        correct[reference],
    )
