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
from stepwise_jax.experiment.serialization import from_json_by_name, to_json
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.comparison import Comparison, Strategy
from stepwise_jax.studies.jobs import Failure
from stepwise_jax.studies.statistics import Difference
from stepwise_jax.studies.statistics import differences as paired_differences
from stepwise_jax.workdir import folder as folder_module
from stepwise_jax.workdir.files import PREDICTIONS, SUMMARY
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.runs import read_summary

FILE, FAILURES = "comparison.json", "failures.json"


def check_finished(
    comparison: Comparison,
    root: Path,
    experiments: Mapping[str, ExperimentConfig],
    stages: Mapping[str, tuple[Stage, ...]],
) -> None:
    """Checks that runs that are finished already are those that would be trained now.

    Args:
      comparison: what is compared.
      root: its folder, which need not exist yet.
      experiments: by the strategy's name.
      stages: of each strategy.

    Raises:
      InputError: naming a run of another experiment, and how it differs.
    """
    for strategy in comparison.strategies:
        for seed in comparison.seeds:
            experiment = dataclasses.replace(experiments[strategy.name], seed=seed)
            folder_module.check_finished(
                comparison.folder(root, strategy.name, seed), experiment, stages[strategy.name]
            )


def open_folder(root: Path, comparison: Comparison) -> Comparison:
    """Makes the folder, or goes on with the comparison in it, whose strategies and seeds are kept beside these.

    Raises:
      InputError: if the folder holds something else, or a comparison of another experiment.
    """
    path = root / FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        if path.exists():
            comparison = _joined(read(root), comparison, root)
        elif any(root.iterdir()):
            raise InputError(f"--workdir {root} is not empty and holds no comparison: name a new folder")
        write_json(path, _document(comparison))
    except OSError as error:
        raise InputError(f"--workdir {root} cannot be written: {error.strerror}") from error
    return comparison


def _joined(before: Comparison, now: Comparison, root: Path) -> Comparison:
    named = ("plan.strategy:", "plan.staged:", "seed:")
    changed = [
        each
        for each in folder_module.binding_differences(now.experiment, before.experiment)
        if not each.startswith(named)
    ]
    known = {strategy.name: strategy for strategy in before.strategies}
    changed += [
        f"strategy {strategy.name}: other fields"
        for strategy in now.strategies
        if strategy.name in known and dict(known[strategy.name].changes) != dict(strategy.changes)
    ]
    if changed:
        raise InputError(f"{root} holds another comparison ({'; '.join(changed)}): use another folder for this one")
    added = tuple(strategy for strategy in now.strategies if strategy.name not in known)
    seeds = tuple(sorted({*before.seeds, *now.seeds}))
    return dataclasses.replace(now, strategies=(*before.strategies, *added), seeds=seeds)


def _document(comparison: Comparison) -> dict[str, Any]:
    return {
        "config": comparison.config,
        "experiment": to_json(comparison.experiment),
        "seeds": list(comparison.seeds),
        "strategies": [
            {"name": each.name, "title": each.title, "config": each.config, "changes": dict(each.changes)}
            for each in comparison.strategies
        ],
    }


def read(root: Path) -> Comparison:
    """The comparison in a folder.

    Raises:
      InputError: where there is none, or its document is damaged.
    """
    document = read_json(root / FILE)
    try:
        strategies = tuple(_recorded_strategy(**each) for each in document["strategies"])
        seeds = tuple(int(seed) for seed in document["seeds"])
        if len(strategies) < 2 or not seeds:
            raise ValueError("nothing is compared")
        experiment = from_json_by_name(document["experiment"])
        return Comparison(str(document["config"]), experiment, strategies, seeds)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{root / FILE} is damaged: it is not what a comparison writes there") from error


def _recorded_strategy(name: str, title: str, config: str, changes: Mapping[str, Any]) -> Strategy:
    return Strategy(str(name), str(title), str(config), dict(changes))


def keep_failures(root: Path, failures: Sequence[Failure]) -> None:
    """Writes down which runs failed in the last attempt, and why."""
    told = [{"run": each.cell.name, "status": each.status, "message": each.message} for each in failures]
    write_json(root / FAILURES, {"failures": told})


@dataclass(frozen=True)
class Finished:
    """A finished run of a comparison."""

    summary: Mapping[str, Any]
    right: np.ndarray
    """Whether each test image was classified rightly, bool [N]."""
    ids: tuple[str, ...]


def finished_runs(comparison: Comparison, root: Path) -> dict[str, dict[int, Finished]]:
    """The runs that are done, by strategy and seed."""
    found: dict[str, dict[int, Finished]] = {}
    for strategy in comparison.strategies:
        folders = {seed: comparison.folder(root, strategy.name, seed) for seed in comparison.seeds}
        done = {seed: folder for seed, folder in folders.items() if (folder / SUMMARY).exists()}
        found[strategy.name] = {seed: _finished(folder) for seed, folder in done.items()}
    return found


def _finished(folder: Path) -> Finished:
    summary = read_summary(folder)
    try:
        # Opened here, as NumPy leaves open what it cannot read.
        with open(folder / PREDICTIONS, "rb") as file, np.load(file, allow_pickle=False) as stored:
            ids, labels, probabilities = stored["ids"], stored["labels"], stored["probabilities"]
            return Finished(summary, probabilities.argmax(1) == labels, tuple(ids.tolist()))
    # What NumPy raises for a file that is torn, cut short, or no archive at all.
    except (OSError, ValueError, KeyError, TypeError, EOFError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{folder / PREDICTIONS} is missing or damaged: train the run anew") from error


def paired(comparison: Comparison, runs: Mapping[str, Mapping[int, Finished]]) -> tuple[Difference, ...]:
    """The first strategy against each of the others, over the seeds that both have finished."""
    reference, *others = (strategy.name for strategy in comparison.strategies)
    scores = {name: {seed: run.summary["top1"] for seed, run in of_seed.items()} for name, of_seed in runs.items()}
    # Answers can be compared image by image only where the images are the same.
    images = {run.ids for of_seed in runs.values() for run in of_seed.values()}
    right = {name: {seed: run.right for seed, run in of_seed.items()} for name, of_seed in runs.items()}
    if len(images) != 1:
        right = {name: {} for name in runs}
    return paired_differences(
        scores[reference],
        {name: scores[name] for name in others},
        {name: right[name] for name in others},
        right[reference],
    )
