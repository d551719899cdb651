"""A comparison: arms x seeds, paired, decided before any run starts."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.config_files import split_row
from stepwise_jax.experiment.serialization import flatten
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.jobs import Job
from stepwise_jax.studies.variants import VARIANTS, default_names


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
            made[name] = make_plan(experiment.plan, examples[name], experiment.optimizer)
        except InputError as error:
            raise InputError(f"strategy {name}: {error}") from error
    return made


def duplicates(
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


def drop_duplicates(compared: Comparison, pairs: Sequence[tuple[str, str]], named: bool) -> Comparison:
    """The comparison with each run once.

    Args:
      compared: what is asked for.
      pairs: of `duplicates`.
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


def reject_ignored_fields(
    given: ExperimentConfig, experiment: ExperimentConfig, strategies: Sequence[Strategy]
) -> None:
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


def make_jobs(
    comparison: Comparison,
    root: Path,
    stages: Mapping[str, Sequence[Stage]],
    launch: Sequence[str],
    fields: Sequence[str],
) -> tuple[Job, ...]:
    """The runs, seed by seed, so that a comparison that is stopped has whole pairs.

    Args:
      comparison: what is compared.
      root: its folder.
      stages: of each strategy.
      launch: the words before `train`.
      fields: the words that change fields of the configuration for every run.
    """
    return tuple(
        Job(
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
