"""The folder of a comparison: opened, its finished runs, and their paired differences."""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.comparison import Comparison, protocol_conflicts
from stepwise_jax.studies.comparison_file import (
    COMPARISON_FILE,
    comparison_to_dict,
    read_comparison,
    read_design_of,
    read_history,
)
from stepwise_jax.studies.designs.document import Design, design_differences
from stepwise_jax.studies.designs.history import new_history, update_history
from stepwise_jax.studies.jobs import Failure
from stepwise_jax.studies.seeds import with_seed
from stepwise_jax.studies.statistics.paired import Difference, paired_differences
from stepwise_jax.workdir.files import DESIGN, SUMMARY
from stepwise_jax.workdir.folder import check_finished_run, conflicting_fields, holds_other_files
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.predictions import read_correct
from stepwise_jax.workdir.runs import READERS, read_summary

FAILURES_FILE = "failures.json"


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
            experiment = with_seed(experiments[arm.name], comparison.protocol.vary, seed)
            check_finished_run(comparison.run_folder(root, arm.name, seed), experiment, stages[arm.name])


def open_comparison_folder(root: Path, comparison: Comparison, design: Design | None = None) -> Comparison:
    """Create the folder, or continue the comparison in it.

    Args:
      root: the folder.
      comparison: the arms and seeds to train now.
      design: that fixes them, if any.

    Returns:
      The comparison; an existing one keeps its arms and seeds and gains the new ones.

    Raises:
      InputError: if the folder holds something else, a comparison of another experiment, or one of another design.
    """
    path = root / COMPARISON_FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Before the document is looked for, because several commands may start at once.
        others = holds_other_files(root, COMPARISON_FILE)
        if path.exists():
            comparison, design = _continue(root, comparison, design)
            history = update_history(read_history(root), comparison, design is not None)
        elif others:
            raise InputError(f"--workdir {root} is not empty and holds no comparison: name a new folder")
        else:
            history = new_history(comparison)
        before = read_json(path) if path.exists() else {}
        write_json(path, {**before, **comparison_to_dict(comparison, design, history)})
    except OSError as error:
        raise InputError(f"--workdir {root} cannot be written: {error.strerror}") from error
    return comparison


def check_comparison_folder(root: Path, comparison: Comparison, design: Design | None = None) -> None:
    """Check that the comparison in a folder, if there is one, can be continued; see `open_comparison_folder`."""
    if (root / COMPARISON_FILE).exists():
        _continue(root, comparison, design)


def _continue(root: Path, comparison: Comparison, design: Design | None) -> tuple[Comparison, Design | None]:
    recorded = read_design_of(root)
    if design is not None:
        if recorded is None:
            raise InputError(f"{root} holds a comparison that started without a design: use another folder")
        changed = design_differences(recorded, design)
        if changed:
            raise InputError(f"the design was changed after the start of {root} ({'; '.join(changed)}): undo that")
    return _merge(read_comparison(root), comparison, root), recorded


def _merge(before: Comparison, now: Comparison, root: Path) -> Comparison:
    # With --vary the seed of the configuration holds the other streams.
    seed = () if before.protocol.vary else ("seed:",)
    set_by_arms = ("plan.strategy:", "plan.staged:", *seed)
    conflicts = conflicting_fields(now.experiment, before.experiment)
    conflicts = [conflict for conflict in conflicts if not conflict.startswith(set_by_arms)]
    known = {arm.name: arm for arm in before.arms}
    conflicts += [
        f"strategy {arm.name}: other fields"
        for arm in now.arms
        if arm.name in known and dict(known[arm.name].changes) != dict(arm.changes)
    ]
    conflicts += protocol_conflicts(before.protocol, now.protocol)
    if conflicts:
        raise InputError(f"{root} holds another comparison ({'; '.join(conflicts)}): use another folder for this one")
    added = tuple(arm for arm in now.arms if arm.name not in known)
    seeds = tuple(sorted({*before.seeds, *now.seeds}))
    return dataclasses.replace(now, arms=(*before.arms, *added), seeds=seeds)


def record_design_in_runs(root: Path, comparison: Comparison) -> None:
    """Write into each run's folder the hash of the design, and whether the design planned the run."""
    design = read_design_of(root)
    if design is None:
        return
    names = {arm.name for arm in design.arms()}
    for arm in comparison.arms:
        for seed in comparison.seeds:
            folder, planned = comparison.run_folder(root, arm.name, seed), arm.name in names and seed in design.seeds
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / DESIGN, {"sha256": design.sha256, "planned": planned})


def write_failures(root: Path, failures: Sequence[Failure]) -> None:
    """Record which runs failed in the last attempt, and why."""
    write_json(root / FAILURES_FILE, {"failures": [failure.to_dict() for failure in failures]})


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of a comparison."""

    summary: Mapping[str, Any]
    correct: np.ndarray
    """Whether each test image was classified correctly, bool [N]."""
    images_sha256: str
    """Of the ids of the test images."""


def read_finished_runs(comparison: Comparison, root: Path) -> dict[str, dict[int, FinishedRun]]:
    """Read the finished runs, by arm and seed."""
    runs: dict[str, dict[int, FinishedRun]] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for arm in comparison.arms:
            folders = {seed: comparison.run_folder(root, arm.name, seed) for seed in comparison.seeds}
            finished = {seed: folder for seed, folder in folders.items() if (folder / SUMMARY).exists()}
            runs[arm.name] = dict(zip(finished, pool.map(_read_finished_run, finished.values()), strict=True))
    return runs


def _read_finished_run(folder: Path) -> FinishedRun:
    summary = read_summary(folder)
    return FinishedRun(summary, *read_correct(folder))


def arm_differences(
    comparison: Comparison, runs: Mapping[str, Mapping[int, FinishedRun]], looks: int = 1
) -> tuple[Difference, ...]:
    """Compare the first arm with each of the others, over the seeds that both have finished.

    Args:
      comparison: the comparison.
      runs: its finished runs, by arm and seed.
      looks: of `count_looks`.
    """
    reference, *others = (arm.name for arm in comparison.arms)
    scores = {name: {seed: run.summary["top1"] for seed, run in by_seed.items()} for name, by_seed in runs.items()}
    correct = {name: {seed: run.correct for seed, run in by_seed.items()} for name, by_seed in runs.items()}
    # Predictions can be compared image by image only where the images are the same.
    if len({run.images_sha256 for by_seed in runs.values() for run in by_seed.values()}) != 1:
        correct = {name: {} for name in runs}
    return paired_differences(
        scores[reference],
        {name: scores[name] for name in others},
        {name: correct[name] for name in others},
        correct[reference],
        comparison.protocol.margin / 100,
        looks,
    )
