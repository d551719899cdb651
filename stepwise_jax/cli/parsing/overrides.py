"""Parses fields of an experiment, given by their dotted names, from the command line."""

import contextlib
import difflib
import io
import itertools
import os
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import tyro

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.config_files import load_config
from stepwise_jax.experiment.fields import type_matches, type_name
from stepwise_jax.experiment.serialization import (
    field_choices,
    field_type,
    flatten_fields,
    function_name,
    override_fields,
)
from stepwise_jax.formatting import program_name, suggest
from stepwise_jax.plans.parameters import describe_parameters
from stepwise_jax.plans.registry import STRATEGIES, find_strategy

# Every flag takes a value: `--model.small-images True`, as in records.
_TYRO_CONFIG = (tyro.conf.FlagConversionOff,)

_REPRODUCTION_PREFIXES = (
    "plan.",
    "optimizer.",
    "model.name",
    "model.small",
    "model.width",
    "model.blocks",
    "data.name",
    "data.image",
    "data.train_examples",
    "data.validation_fraction",
    "data.normalisation",
)
"""Prefixes of fields whose change ends the reproduction of a row of the paper."""

_USUAL_NAMES = {
    "lr": "plan.learning_rate",
    "bs": "plan.batch_size",
    "batch": "plan.batch_size",
    "epochs": "plan.epochs_per_stage",
    "wd": "optimizer.weight_decay",
    "beta": "optimizer.momentum",
    "stages": "plan.fractions",
    "gamma": "plan.decay_factor",
    "arch": "model.name",
    "network": "model.name",
    "pretrained": "model.initial_weights",
    "weights": "model.initial_weights",
    "dataset": "data.name",
    "resolution": "data.image_size",
    "precision": "dtype",
}
"""Fields by what other programs call them."""


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
    if arguments and not arguments[0].startswith("-"):
        raise InputError(_describe_stray_word(config, arguments[0]))
    output = io.StringIO()
    with contextlib.redirect_stderr(output), _wide_terminal():
        try:
            parsed = _run_tyro(arguments, config, program_name)
        except SystemExit as error:
            raise InputError(_format_error(output.getvalue(), arguments)) from error
    if isinstance(parsed.plan.strategy, str):
        # Raises an error before the data is opened.
        find_strategy(parsed.plan.strategy)
    return _clear_reproduces(config, _keep_staged(config, parsed))


def _keep_staged(config: ExperimentConfig, parsed: ExperimentConfig) -> ExperimentConfig:
    """Sets `plan.staged` to the user's own strategy if a control replaces it, because controls are matched to it."""
    if not callable(config.plan.strategy) or callable(parsed.plan.strategy) or callable(parsed.plan.staged):
        return parsed
    return override_fields(parsed, {"plan.staged": config.plan.strategy})


def _clear_reproduces(config: ExperimentConfig, parsed: ExperimentConfig) -> ExperimentConfig:
    """Clears `reproduces` if the plan, the network or the data set differs from that of the configuration."""
    before, after = flatten_fields(config), flatten_fields(parsed)
    changed = [name for name in before if name.startswith(_REPRODUCTION_PREFIXES) and before[name] != after[name]]
    same_label = config.reproduces == parsed.reproduces
    return override_fields(parsed, {"reproduces": ""}) if changed and same_label else parsed


def print_fields(config: ExperimentConfig, program_name: str) -> None:
    """Prints every field with its type, meaning and value on stdout, and the strategies."""
    with contextlib.suppress(SystemExit):
        _run_tyro(["--help"], config, program_name)
    print("\nStrategies, with the parameters that may follow their names:\n")
    for name, entry in STRATEGIES.items():
        print(f"  {name}{describe_parameters(entry.function)}\n      {entry.title}")


def _run_tyro(arguments: Sequence[str], config: ExperimentConfig, program_name: str) -> ExperimentConfig:
    with _registry:
        return tyro.cli(
            ExperimentConfig,
            args=list(arguments),
            default=config,
            prog=program_name,
            config=_TYRO_CONFIG,
            use_underscores=True,
        )


_registry = tyro.constructors.ConstructorRegistry()


@_registry.primitive_rule
def _function_rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Accepts the names of a field that may be a function; shows a function, which only a file can set, by its name."""
    hints = typing.get_args(info.type)
    if not any(typing.get_origin(hint) in (Callable, Mapping) for hint in hints):
        return None
    several = any(typing.get_origin(hint) is tuple for hint in hints)
    choices = [choice for hint in hints if typing.get_origin(hint) is Literal for choice in typing.get_args(hint)]

    def read(words: list[str]) -> Any:
        if choices and words[0] not in choices:
            raise ValueError(words[0])
        return tuple(words) if several else words[0]

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if several else 1,
        metavar="{" + ",".join(choices) + "}" if choices else "[STR [STR ...]]" if several else "STR",
        instance_from_str=read,
        is_instance=lambda value: type_matches(value, info.type),
        str_from_instance=_function_words,
    )


def _function_words(value: Any) -> list[str]:
    """A field's value in words."""
    if isinstance(value, str):
        return [value]
    return [function_name(value)] if callable(value) else list(value)


def _field_name(word: str) -> str:
    return word.removeprefix("--").split("=")[0].replace("-", "_")


def _is_field(config: ExperimentConfig, word: str) -> bool:
    return _field_name(word) in flatten_fields(config)


def _nearest_field(config: ExperimentConfig, word: str) -> str:
    names = list(flatten_fields(config))
    requested = _field_name(word)
    leaf = requested.rsplit(".", 1)[-1]
    usual = [_USUAL_NAMES[leaf]] if leaf in _USUAL_NAMES else []
    same_leaf = [name for name in names if name.rsplit(".", 1)[-1] == leaf]
    near = same_leaf or usual or difflib.get_close_matches(requested, names, n=3)
    return f": did you mean {' or '.join('--' + name for name in near)}?" if near else ": --help lists them"


def _describe_stray_word(config: ExperimentConfig, word: str) -> str:
    """What is wrong with a word that belongs to no option: `plan.batch_size=8` lacks its dashes."""
    if _is_field(config, word):
        name, _, value = word.partition("=")
        return f"{word!r} is no option: write --{name}" + (f" {value}" if value else "")
    return f"{word!r} belongs to no option: fields are written as --plan.batch_size 8"


@contextlib.contextmanager
def _wide_terminal():
    """Widens the terminal: tyro prints an error in a box of its width, and must not break a line."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _format_error(box: str, arguments: Sequence[str]) -> str:
    """One sentence from tyro's error box: the text of our own error if it quotes one, else the field and its type."""
    lines = [line.strip("│| ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    message = next((line for line in lines[1:] if line and not set(line) <= set("-─")), box.strip())
    own_error = re.search(r"Error parsing \w+: (.*)", message)
    if own_error:
        return own_error.group(1)
    if stray := re.fullmatch(r"Unrecognized options: (\S+).*", message):
        return f"{stray[1]!r} belongs to no option"
    flag = re.search(r"--([\w.-]+)", message)
    if not flag:
        return message
    name = _field_name(flag.group(1))
    values = _flag_values(name, arguments)
    kind = _describe_kind(name, values)
    if not values:
        return f"--{name} has no value: give {kind}"
    return f"--{name} is {' '.join(values)!r}: it must be {kind}{suggest(values[0], field_choices(name))}"


def _describe_kind(name: str, values: Sequence[str]) -> str:
    """What the values of a field must be, on the command line."""
    spaced = " ".join(values).replace(",", " ").split()
    corrected = f": {' '.join(spaced)}" if "," in "".join(values) else ""
    return re.sub("a tuple of (.*numbers)", rf"\1 with spaces between them{corrected}", type_name(field_type(name)))


def _flag_values(name: str, arguments: Sequence[str]) -> list[str]:
    """The words that follow the last flag of a field."""
    flags = [index for index, word in enumerate(arguments) if word.startswith("--") and _field_name(word) == name]
    if not flags:
        return []
    _, equals, value = arguments[flags[-1]].partition("=")
    after = arguments[flags[-1] + 1 :]
    return [value] if equals else list(itertools.takewhile(lambda word: not word.startswith("--"), after))
