"""What `compare` is asked for: a comparison from CONFIG and options, or from a design."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepwise_jax.cli.parsing.overrides import parse_fields
from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.config_files import load_config, load_rows
from stepwise_jax.formatting import program_name
from stepwise_jax.studies import comparison, comparison_file, tuning
from stepwise_jax.studies.comparison import Arm, Comparison, Protocol
from stepwise_jax.studies.designs.document import Design, design_differences, make_design, read_design
from stepwise_jax.studies.seeds import check_vary
from stepwise_jax.workdir.folder import CHANGEABLE_FIELDS

_FIXED = ("strategies", "seeds", "margin", "looks", "tune_trials", "vary", "pilot")
"""Options that a design decides."""


@dataclass(frozen=True)
class Request:
    """The comparison that a command asks for."""

    comparison: Comparison
    experiments: Mapping[str, ExperimentConfig]
    """By the arm's name."""
    fields: tuple[str, ...]
    """Arguments `--FIELD VALUE ...` of every run."""
    arms_named: bool
    """Whether the user named each arm."""
    design: Design | None = None


def check_options(options: argparse.Namespace, fields: Sequence[str]) -> None:
    """Refuses options that contradict each other.

    Raises:
      InputError: naming one of them.
    """
    for name in ("workdir", "design", "log", "mirror", "processes", "executor"):
        if options.plan_design and getattr(options, name):
            raise InputError(f"--plan-design writes a design and trains nothing: leave out --{name}")
    if options.pilot and not options.plan_design:
        raise InputError("--pilot says what a design can show: give it with --plan-design")
    if not options.plan_design and not options.workdir:
        raise InputError("compare: give --workdir DIR, the folder of the comparison, or --plan-design FILE")
    if options.design:
        _check_design_options(options, fields)


def _check_design_options(options: argparse.Namespace, fields: Sequence[str]) -> None:
    if fields and not fields[0].startswith("--"):
        raise InputError(f"--design {options.design} names its configuration: leave out CONFIG, {fields[0]}")
    for name in _FIXED:
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"--design {options.design} decides {option}: leave it out, or plan another design")
    for word in fields:
        if word.startswith("--") and not word.removeprefix("--").replace("-", "_").startswith(CHANGEABLE_FIELDS):
            raise InputError(f"--design {options.design} fixes every field: leave out {word.partition('=')[0]}")


def make_request(options: argparse.Namespace, fields: Sequence[str], mirrored: Path | None = None) -> Request:
    """The comparison of the command line.

    Args:
      options: of the command line.
      fields: `--FIELD VALUE` words for all runs.
      mirrored: a folder with the document of a comparison that continues, besides the folder of the options.

    Raises:
      InputError: for whatever cannot be compared.
    """
    request = _from_design(options.design, fields) if options.design else _from_options(options, fields, mirrored)
    comparison.check_arm_names([arm.name for arm in request.comparison.arms])
    return request


def _from_options(options: argparse.Namespace, fields: Sequence[str], mirrored: Path | None) -> Request:
    number = 5 if options.seeds is None else options.seeds
    require(1 <= number <= 10_000, "--seeds", number, "from 1 to 10000")
    config = load_config(options.config)
    experiment = parse_fields(config, fields, f"{program_name()} compare {options.config}")
    text = options.strategies or ""
    arms = comparison.choose_arms(
        [name for name in text.split(",") if name], options.config, experiment, load_rows(options.config)
    )
    comparison.reject_ignored_fields(config, experiment, arms)
    seeds = tuple(range(experiment.seed, experiment.seed + number))
    protocol = _make_protocol(options, number, mirrored)
    check_vary(protocol.vary, experiment)
    tuning.check_tuning(protocol.tune_trials, experiment, seeds)
    compared = Comparison(options.config, experiment, arms, seeds, protocol)
    return Request(compared, load_arms(arms, fields), tuple(fields), text not in ("", "rows"))


def _make_protocol(options: argparse.Namespace, seeds: int, mirrored: Path | None) -> Protocol:
    """What the options say, and where they say nothing what the folder has recorded."""
    given = {name: getattr(options, name) for name in ("margin", "looks", "tune_trials", "vary")}
    recorded = _recorded_protocol(options.workdir, mirrored)
    margin, looks, trials, vary = (getattr(recorded, name) if value is None else value for name, value in given.items())
    require(0 < margin <= 100, "--margin", margin, "points of top-1, above 0 and at most 100")
    if given["looks"] is not None:
        rising = list(looks) == sorted(set(looks)) and looks[0] >= 1 and looks[-1] == seeds
        require(rising, "--looks", looks, f"rising numbers of seeds that end with all {seeds}")
    return Protocol(margin, looks, trials, vary)


def _recorded_protocol(*folders: Path | None) -> Protocol:
    """The protocol in the first of these folders that has one, or the default."""
    known = [folder for folder in folders if folder and (folder / comparison_file.COMPARISON_FILE).exists()]
    return comparison_file.read_comparison(known[0]).protocol if known else Protocol()


def load_arms(arms: Sequence[Arm], fields: Sequence[str]) -> dict[str, ExperimentConfig]:
    """The experiment of each arm by its name, with fields of the command line replaced."""
    return {arm.name: arm_experiment(arm, fields) for arm in arms}


def arm_experiment(arm: Arm, fields: Sequence[str], others: Sequence[str] = ()) -> ExperimentConfig:
    """The experiment of an arm.

    Args:
      arm: the arm.
      fields: arguments `--FIELD VALUE ...` of every run.
      others: further arguments, which the arm does not override.
    """
    return parse_fields(load_config(arm.config), [*fields, *arm.arguments(), *others], f"strategy {arm.name}")


def _from_design(path: Path, fields: Sequence[str]) -> Request:
    design = read_design(path)
    words = (*design.field_arguments(), *fields)
    experiment = parse_fields(load_config(design.config), words, f"--design {path}")
    arms = design.arms()
    protocol = design.protocol()
    check_vary(protocol.vary, experiment)
    tuning.check_tuning(protocol.tune_trials, experiment, design.seeds)
    compared = Comparison(design.config, experiment, arms, design.seeds, protocol)
    experiments = load_arms(arms, words)
    now = design_differences(design, make_design(compared, experiments, words))
    if now:
        raise InputError(f"--design {path}: {design.config} now says something else ({'; '.join(now)})")
    return Request(compared, experiments, words, True, design)
