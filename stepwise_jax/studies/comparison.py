"""A comparison: arms x seeds, paired, all decided before any run starts."""

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig
from stepwise_jax.experiment.config_files import split_row
from stepwise_jax.experiment.serialization import flatten_fields
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.jobs import Job
from stepwise_jax.studies.seeds import seed_arguments
from stepwise_jax.studies.statistics.paired import DEFAULT_MARGIN
from stepwise_jax.studies.variants import VARIANTS, default_names, find_variant


@dataclass(frozen=True)
class Arm:
    """One arm of a comparison: a strategy, as changes to a configuration."""

    name: str
    title: str
    config: str
    """The configuration file, or one of its rows as FILE:ROW."""
    changes: Mapping[str, Any]
    """Fields that differ from the configuration, by dotted name."""

    def arguments(self) -> tuple[str, ...]:
        """The changes as command-line arguments: `--plan.strategy baseline ...`."""
        return tuple(word for name, value in self.changes.items() for word in (f"--{name}", str(value)))


@dataclass(frozen=True)
class Protocol:
    """What a comparison fixes before its first run, beside its arms and seeds."""

    margin: float = 100 * DEFAULT_MARGIN
    """Points of top-1 within which two arms count as equivalent."""
    looks: tuple[int, ...] = ()
    """Numbers of seeds after which the results are looked at; empty: once, after the last."""
    tune_trials: int = 0
    """Learning rates that are tried for each arm on held-out training images; 0: none is tuned."""
    vary: tuple[str, ...] = ()
    """Streams of random numbers that differ between the seeds, of `STREAM_FIELDS`; empty: `seed` itself does."""


def protocol_from_dict(document: Mapping[str, Any]) -> Protocol:
    """Return the protocol that `dataclasses.asdict` made; an entry that is missing has its default.

    Raises:
      TypeError, ValueError, AttributeError: if the document is damaged.
    """
    protocol = Protocol(**document)
    looks, vary = tuple(map(int, protocol.looks)), tuple(map(str, protocol.vary))
    return Protocol(float(protocol.margin), looks, int(protocol.tune_trials), vary)


def protocol_conflicts(before: Protocol, now: Protocol) -> list[str]:
    """One phrase for each entry that a comparison cannot change; the margin can be changed, and is marked then."""
    ours, theirs = dataclasses.asdict(now), dataclasses.asdict(before)
    return [
        f"--{name.replace('_', '-')}: {_words(value)} instead of {_words(theirs[name])}"
        for name, value in ours.items()
        if value != theirs[name] and name != "margin"
    ]


def _words(value: Any) -> str:
    return (",".join(map(str, value)) or "the default") if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Comparison:
    """A comparison of several arms over several seeds."""

    config: str
    experiment: ExperimentConfig
    arms: tuple[Arm, ...]
    """The first is the reference, which the others are compared with."""
    seeds: tuple[int, ...]
    protocol: Protocol = Protocol()

    def run_folder(self, root: Path, arm: str, seed: int) -> Path:
        """The workdir of the run of an arm and a seed."""
        return root / arm / f"seed{seed}"


def check_arm_names(names: Sequence[str]) -> None:
    """Check that every arm can have a folder of its own in a comparison's.

    Raises:
      InputError: for a name that stands twice, or cannot be the name of a folder.
    """
    for name in names:
        plain = name == Path(name).name and not name.startswith(".") and "\0" not in name
        require(plain and name not in _FOLDERS, "a strategy's name", name, "one that can name a folder of its own")
        require(names.count(name) == 1, "a strategy's name", name, "given once")


_FOLDERS = ("report", "tuning")
"""In a comparison's folder, beside those of the arms."""


def make_plans(
    experiments: Mapping[str, ExperimentConfig], examples: Mapping[str, int]
) -> dict[str, tuple[Stage, ...]]:
    """Plan the stages of each arm.

    Args:
      experiments: by the arm's name.
      examples: M, by the same names.

    Raises:
      InputError: naming the arm whose plan cannot be made.
    """
    plans: dict[str, tuple[Stage, ...]] = {}
    for name, experiment in experiments.items():
        try:
            plans[name] = make_plan(experiment.plan, examples[name], experiment.optimizer)
        except InputError as error:
            raise InputError(f"strategy {name}: {error}") from error
    return plans


def find_duplicates(
    experiments: Mapping[str, ExperimentConfig], stages: Mapping[str, tuple[Stage, ...]]
) -> tuple[tuple[str, str], ...]:
    """Pairs of arms that are the same run, the earlier one first."""
    # A stage's hyperparameters and an experiment's metrics are mappings: they can be compared, not hashed.
    seen: list[tuple[Any, str]] = []
    found = []
    for name, experiment in experiments.items():
        plan = experiment.plan
        # The stages say all of a plan except what happens between two stages.
        crossing = PlanConfig(carry=plan.carry, batch_statistics=plan.batch_statistics)
        key = (dataclasses.replace(experiment, reproduces="", plan=crossing), stages[name])
        first = next((other for earlier, other in seen if earlier == key), None)
        if first is None:
            seen.append((key, name))
        else:
            found.append((first, name))
    return tuple(found)


def drop_duplicates(comparison: Comparison, pairs: Sequence[tuple[str, str]], named: bool) -> Comparison:
    """Remove arms that would repeat another arm's run.

    Args:
      comparison: the requested comparison.
      pairs: of `find_duplicates`.
      named: whether the user named the arms: then a duplicate is an error.

    Raises:
      InputError: for duplicates that the user named.
    """
    if pairs and named:
        first, second = pairs[0]
        raise InputError(f"strategies {first} and {second} are the same run here: leave one of them out")
    duplicates = {second for _, second in pairs}
    kept = tuple(arm for arm in comparison.arms if arm.name not in duplicates)
    return dataclasses.replace(comparison, arms=kept)


def choose_arms(
    names: Sequence[str], config: str, experiment: ExperimentConfig, rows: Mapping[str, ExperimentConfig]
) -> tuple[Arm, ...]:
    """The arms called `names`, each a row of the configuration file or a variant; without names, the default eight.

    Args:
      names: `rows` alone stands for all rows of the file.
      config: the configuration file.
      experiment: the experiment in it.
      rows: its `get_rows()`.

    Raises:
      InputError: for an unknown name (quoting the nearest ones), a repeated name, or a single arm.
    """
    if not names:
        # The file's own baseline row is the same run, and is known to reproduce the paper's.
        own = {"baseline": rows["baseline"]} if "baseline" in rows else {}
        return tuple(_make_arm(name, config, own) for name in default_names(experiment))
    arms = named_arms(names, config, rows, "--strategies")
    requested = ",".join(arm.name for arm in arms)
    require(len(arms) > 1, "--strategies", requested, "at least two names, the first to compare with")
    return arms


def named_arms(names: Sequence[str], config: str, rows: Mapping[str, ExperimentConfig], option: str) -> tuple[Arm, ...]:
    """The arms called `names`, as `choose_arms`, which may be one.

    Args:
      names: `rows` alone stands for all rows of the file.
      config: the configuration file.
      rows: its `get_rows()`.
      option: of the command line that has the names, for messages.

    Raises:
      InputError: for an unknown name (quoting the nearest ones), a repeated name, or none.
    """
    requested = list(names)
    if requested == ["rows"]:
        require(bool(rows), option, "rows", f"the names of strategies: {config} has no get_rows()")
        requested = list(rows)
    for name in requested:
        if name not in rows and find_variant(name) is None:
            raise InputError(f"{option}: {_describe_unknown(name, config, [*rows, *VARIANTS])}")
    require(bool(requested), option, "", "the names of strategies or rows")
    require(len(set(requested)) == len(requested), option, ",".join(requested), "different names")
    return tuple(_make_arm(name, config, rows) for name in requested)


def _describe_unknown(name: str, config: str, known: Sequence[str]) -> str:
    if name in ("all", "rows"):
        return f"{name!r} cannot stand beside other names"
    near = difflib.get_close_matches(name, known, n=3) or known
    return f"{name!r} is neither a row of {config} nor a known strategy: try {', '.join(near)}"


def _make_arm(name: str, config: str, rows: Mapping[str, ExperimentConfig]) -> Arm:
    if name in rows:
        file, _ = split_row(config)
        return Arm(name, f"{name} of {Path(file).name}", f"{file}:{name}", {})
    variant = find_variant(name)
    assert variant is not None
    return Arm(name, variant.title, config, variant.changes)


def reject_ignored_fields(given: ExperimentConfig, experiment: ExperimentConfig, arms: Sequence[Arm]) -> None:
    """Refuse fields of the command line that would have no effect, because every arm sets them itself.

    Args:
      given: the experiment in the configuration file.
      experiment: the same with the fields of the command line.
      arms: of the comparison.

    Raises:
      InputError: naming such a field.
    """
    before = flatten_fields(given)
    for name, value in flatten_fields(experiment).items():
        if value != before[name] and all(name in arm.changes for arm in arms):
            raise InputError(f"--{name} {value}: each of the strategies sets this field itself: leave it out")


def make_jobs(
    comparison: Comparison,
    root: Path,
    stages: Mapping[str, Sequence[Stage]],
    launcher: Sequence[str],
    fields: Sequence[str],
) -> tuple[Job, ...]:
    """The runs, seed by seed, so that a comparison that is stopped early has complete pairs.

    Args:
      comparison: the comparison.
      root: its folder.
      stages: of each arm.
      launcher: the words of the command before `train`.
      fields: command-line arguments that change fields of the configuration for every run.
    """
    return tuple(
        _make_job(comparison, arm, seed, root, stages[arm.name], launcher, fields)
        for seed in comparison.seeds
        for arm in comparison.arms
    )


def split_by_look(comparison: Comparison, jobs: Sequence[Job]) -> list[Sequence[Job]]:
    """The jobs of `make_jobs` up to each look, and those after the last."""
    arms, seeds = len(comparison.arms), len(comparison.seeds)
    stops = [0, *(look for look in comparison.protocol.looks if look < seeds), seeds]
    return [jobs[arms * first : arms * last] for first, last in itertools.pairwise(stops)]


def _make_job(
    comparison: Comparison,
    arm: Arm,
    seed: int,
    root: Path,
    stages: Sequence[Stage],
    launcher: Sequence[str],
    fields: Sequence[str],
) -> Job:
    folder = comparison.run_folder(root, arm.name, seed)
    # The last argument wins: the arm's changes override the fields of all runs.
    arguments = (*fields, *arm.arguments(), *seed_arguments(comparison.protocol.vary, seed))
    return Job(
        name=f"{arm.name}, seed {seed}",
        folder=folder,
        command=(*launcher, "train", arm.config, "--workdir", str(folder), *arguments),
        samples=sum(stage.updates * stage.batch_size for stage in stages),
    )
