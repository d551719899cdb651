"""Overrides: fields of the experiment replaced by dotted name on the command line."""

import contextlib
import difflib
import io
import itertools
import os
import re
import typing
from collections.abc import Sequence
from typing import Any

import tyro

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, StrategyName
from stepwise_jax.experiment.config_files import load_config
from stepwise_jax.experiment.fields import type_name
from stepwise_jax.experiment.serialization import field_type, flatten, override_fields
from stepwise_jax.formatting import program_name

# Every flag takes a value, `--model.small-images True`, as design and records write it.
_TYRO = (tyro.conf.FlagConversionOff,)


_DECISIVE = (
    "plan.",
    "optimizer.",
    "model.name",
    "model.small",
    "model.width",
    "model.blocks",
    "data.name",
    "data.image",
)

_DECISIVE += ("data.train_examples", "data.validation_fraction", "data.normalisation")


def load_experiment(config: str, arguments: Sequence[str], command: str) -> ExperimentConfig:
    """The experiment of a configuration file, with the fields that `arguments` name replaced.

    Raises:
      InputError: as `load_config` and `parse_fields`.
    """
    return parse_fields(load_config(config), arguments, f"{program_name()} {command} {config}")


def parse_fields(config: ExperimentConfig, arguments: Sequence[str], program_name: str) -> ExperimentConfig:
    """The experiment with the fields that `arguments` name (`--plan.batch-size 16 ...`) replaced and checked.

    Raises:
      InputError: for a name that is no field (with the nearest), or a value of another type or out of range.
    """
    unknown = [word for word in arguments if word.startswith("--") and not _is_field(config, word)]
    if unknown:
        raise InputError(f"{unknown[0]} is no field of the experiment{_nearest_field(config, unknown[0])}")
    told = io.StringIO()
    with contextlib.redirect_stderr(told), _wide_terminal():
        try:
            return _relabelled(config, _keep_staged(config, _cli(arguments, config, program_name)))
        except SystemExit as error:
            raise InputError(_sentence(told.getvalue(), arguments)) from error


def _keep_staged(config: ExperimentConfig, parsed: ExperimentConfig) -> ExperimentConfig:
    """A control named in place of a strategy of the user's own is measured by the latter."""
    if not callable(config.plan.strategy) or callable(parsed.plan.strategy) or callable(parsed.plan.staged):
        return parsed
    return override_fields(parsed, {"plan.staged": config.plan.strategy})


def _relabelled(config: ExperimentConfig, parsed: ExperimentConfig) -> ExperimentConfig:
    """Another plan, network or data set than the configuration's no longer reproduces the paper's row."""
    before, after = flatten(config), flatten(parsed)
    decisive = [name for name in before if name.startswith(_DECISIVE) and before[name] != after[name]]
    same_label = config.reproduces == parsed.reproduces
    return override_fields(parsed, {"reproduces": ""}) if decisive and same_label else parsed


def print_fields(config: ExperimentConfig, program_name: str) -> None:
    """Every field with its type, meaning and value, on stdout."""
    with contextlib.suppress(SystemExit):
        _cli(["--help"], config, program_name)


def _cli(arguments: Sequence[str], config: ExperimentConfig, program_name: str) -> ExperimentConfig:
    with _strategies:
        return tyro.cli(ExperimentConfig, args=list(arguments), default=config, prog=program_name, config=_TYRO)


_strategies = tyro.constructors.ConstructorRegistry()


@_strategies.primitive_rule
def _strategy_rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """A strategy is given by name; a function comes from a configuration file only, and is shown by its name."""
    choices = {field_type("plan.strategy"): typing.get_args(StrategyName), field_type("plan.staged"): ("stepwise",)}
    if info.type not in choices:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(choices[info.type]) + "}",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str) or callable(value),
        str_from_instance=lambda value: [value if isinstance(value, str) else getattr(value, "__name__", "function")],
    )


def _field_name(word: str) -> str:
    return word.removeprefix("--").split("=")[0].replace("-", "_")


def _is_field(config: ExperimentConfig, word: str) -> bool:
    return _field_name(word) in flatten(config)


def _nearest_field(config: ExperimentConfig, word: str) -> str:
    names = list(flatten(config))
    wanted = _field_name(word)
    same_leaf = [name for name in names if name.rsplit(".", 1)[-1] == wanted.rsplit(".", 1)[-1]]
    near = same_leaf or difflib.get_close_matches(wanted, names, n=3)
    return f": did you mean {' or '.join('--' + name for name in near)}?" if near else ": --help lists them"


@contextlib.contextmanager
def _wide_terminal():
    """Tyro draws its complaint in a box as wide as the terminal: wide enough that no sentence is broken."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _sentence(box: str, arguments: Sequence[str]) -> str:
    """One sentence from the box that tyro draws around a complaint: ours where it quotes us, else by field and type."""
    lines = [line.strip("│| ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    told = next((line for line in lines[1:] if line and not set(line) <= set("-─")), box.strip())
    ours = re.search(r"Error parsing \w+: (.*)", told)
    if ours:
        return ours.group(1)
    flag = re.search(r"--([\w.-]+)", told)
    if not flag:
        return told
    name = _field_name(flag.group(1))
    given = " ".join(_words_of(name, arguments))
    return f"--{name} is {given!r}: it must be {type_name(field_type(name))}"


def _words_of(name: str, arguments: Sequence[str]) -> list[str]:
    """The words that follow a field's flag."""
    places = [i for i, word in enumerate(arguments) if word.startswith("--") and _field_name(word) == name]
    after = arguments[places[-1] + 1 :] if places else []
    joined = [arguments[places[-1]].split("=", 1)[1]] if places and "=" in arguments[places[-1]] else []
    return joined or list(itertools.takewhile(lambda word: not word.startswith("--"), after))
