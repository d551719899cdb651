"""A comparison: strategies x seeds, paired. Its plan, its folder, and what its runs have shown so far.

The folder holds `comparison.json`, and a run for each strategy and seed in STRATEGY/seedN.
"""

import dataclasses
import difflib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepwise_jax.cells import Cell, Failure
from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.config_files import split_row
from stepwise_jax.experiment.serialization import flatten, from_json_by_name, to_json
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage
from stepwise_jax.statistics import Difference
from stepwise_jax.statistics import differences as paired_differences
from stepwise_jax.variants import VARIANTS, default_names
from stepwise_jax.workdir import folder as folder_module
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.runs import read_summary

FILE, FAILURES = "comparison.json", "failures.json"


@dataclass(frozen=True)
class Strategy:
    """One strategy of a comparison, and the words on a command line that make it of the configuration."""

    name: str
    title: str
    config: str
    """The configuration file, or one of its rows as FILE:ROW."""
    changes: Mapping[str, Any]
    """Fields that differ from the configuration, by dotted name."""

    def words(self) -> tuple[str, ...]:
        """The changes as `--plan.strategy baseline ...`."""
        return tuple(word for name, value in self.changes.items() for word in (f"--{name}", str(value)))


@dataclass(frozen=True)
class Comparison:
    """What is compared; the first strategy is what the others are compared with."""

    config: str
    experiment: ExperimentConfig
    strategies: tuple[Strategy, ...]
    seeds: tuple[int, ...]

    def folder(self, root: Path, strategy: str, seed: int) -> Path:
        """The run's workdir."""
        return root / strategy / f"seed{seed}"


def plans(experiments: Mapping[str, ExperimentConfig], examples: Mapping[str, int]) -> dict[str, tuple[Stage, ...]]:
    """The stages of each strategy.

    Args:
      experiments: by the strategy's name.
      examples: M, by the same names.

    Raises:
      InputError: naming the strategy whose plan cannot be made.
    """
    made: dict[str, tuple[Stage, ...]] = {}
    for name, experiment in experiments.items():
        try:
            made[name] = make_plan(experiment.plan, experiment.optimizer, examples[name])
        except InputError as error:
            raise InputError(f"strategy {name}: {error}") from error
    return made


def twins(
    experiments: Mapping[str, ExperimentConfig], stages: Mapping[str, tuple[Stage, ...]]
) -> tuple[tuple[str, str], ...]:
    """Pairs of strategies that are the same run, the earlier one first."""
    seen: dict[Any, str] = {}
    found = []
    for name, experiment in experiments.items():
        plan = experiment.plan
        crossing = PlanConfig(carry=plan.carry, batch_statistics=plan.batch_statistics)
        key = (dataclasses.replace(experiment, reproduces="", plan=crossing), stages[name])
        if key in seen:
            found.append((seen[key], name))
        seen.setdefault(key, name)
    return tuple(found)


def without_twins(compared: Comparison, pairs: Sequence[tuple[str, str]], named: bool) -> Comparison:
    """The comparison with each run once.

    Args:
      compared: what is asked for.
      pairs: of `twins`.
      named: whether the user named the strategies, and has to be told.

    Raises:
      InputError: for strategies that the user named.
    """
    if pairs and named:
        first, second = pairs[0]
        raise InputError(f"strategies {first} and {second} are the same run here: leave one of them out")
    doubles = {second for _, second in pairs}
    left = tuple(each for each in compared.strategies if each.name not in doubles)
    return dataclasses.replace(compared, strategies=left)


def choose(
    names: Sequence[str], config: str, experiment: ExperimentConfig, rows: Mapping[str, ExperimentConfig]
) -> tuple[Strategy, ...]:
    """The strategies called `names`: rows of the configuration file, or variants; none named takes the default seven.

    Args:
      names: `rows` stands for all rows of the file.
      config: the configuration file.
      experiment: what it holds.
      rows: its `get_rows()`.

    Raises:
      InputError: for a name that is neither (with the nearest), a name given twice, or a single strategy.
    """
    if not names:
        # The file's row of the baseline is the same run, and known to reproduce the paper's.
        own = {"baseline": rows["baseline"]} if "baseline" in rows else {}
        return tuple(_strategy(name, config, own) for name in default_names(experiment))
    wanted = list(names)
    if wanted == ["rows"]:
        require(bool(rows), "--strategies", "rows", f"the names of strategies: {config} has no get_rows()")
        wanted = list(rows)
    for name in wanted:
        if name not in rows and name not in VARIANTS:
            known = [*rows, *VARIANTS]
            near = difflib.get_close_matches(name, known, n=3) or known
            raise InputError(
                f"--strategies: {name!r} is neither a row of {config} nor one of ours, as {', '.join(near)}"
            )
    require(len(set(wanted)) == len(wanted), "--strategies", ",".join(wanted), "different names")
    require(len(wanted) > 1, "--strategies", ",".join(wanted), "at least two names, the first to compare with")
    return tuple(_strategy(name, config, rows) for name in wanted)


def _strategy(name: str, config: str, rows: Mapping[str, ExperimentConfig]) -> Strategy:
    if name in rows:
        file, _ = split_row(config)
        return Strategy(name, f"{name} of {Path(file).name}", f"{file}:{name}", {})
    return Strategy(name, VARIANTS[name].title, config, VARIANTS[name].changes)


def refuse_unheeded(given: ExperimentConfig, experiment: ExperimentConfig, strategies: Sequence[Strategy]) -> None:
    """Refuses fields of the command line that every strategy sets to a value of its own.

    Args:
      given: what the configuration file holds.
      experiment: the same with the fields of the command line.
      strategies: what is compared.

    Raises:
      InputError: naming such a field.
    """
    before = flatten(given)
    for name, value in flatten(experiment).items():
        if value != before[name] and all(name in each.changes for each in strategies):
            raise InputError(f"--{name} {value}: each of the strategies sets this field itself: leave it out")


def make_cells(
    comparison: Comparison,
    root: Path,
    stages: Mapping[str, Sequence[Stage]],
    launch: Sequence[str],
    fields: Sequence[str],
) -> tuple[Cell, ...]:
    """The runs, seed by seed, so that a comparison that is stopped has whole pairs.

    Args:
      comparison: what is compared.
      root: its folder.
      stages: of each strategy.
      launch: the words before `train`.
      fields: the words that change fields of the configuration for every run.
    """
    return tuple(
        Cell(
            name=f"{strategy.name}, seed {seed}",
            folder=comparison.folder(root, strategy.name, seed),
            command=(
                *launch,
                "train",
                strategy.config,
                "--workdir",
                str(comparison.folder(root, strategy.name, seed)),
                *fields,
                *strategy.words(),
                "--seed",
                str(seed),
            ),
            samples=sum(stage.updates * stage.batch_size for stage in stages[strategy.name]),
        )
        for seed in comparison.seeds
        for strategy in comparison.strategies
    )


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
        done = {seed: folder for seed, folder in folders.items() if (folder / folder_module.SUMMARY).exists()}
        found[strategy.name] = {seed: _finished(folder) for seed, folder in done.items()}
    return found


def _finished(folder: Path) -> Finished:
    summary = read_summary(folder)
    try:
        # Opened here, as NumPy leaves open what it cannot read.
        with open(folder / folder_module.PREDICTIONS, "rb") as file, np.load(file, allow_pickle=False) as stored:
            ids, labels, probabilities = stored["ids"], stored["labels"], stored["probabilities"]
            return Finished(summary, probabilities.argmax(1) == labels, tuple(ids.tolist()))
    # What NumPy raises for a file that is torn, cut short, or no archive at all.
    except (OSError, ValueError, KeyError, TypeError, EOFError, IndexError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{folder / folder_module.PREDICTIONS} is missing or damaged: train the run anew") from error


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
