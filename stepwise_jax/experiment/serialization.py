"""Flattens an experiment to dotted names, overrides and compares fields, and converts to and from dictionaries."""

import dataclasses
import functools
import logging
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.fields import ConfigSection
from stepwise_jax.experiment.functions import describe_function, record_from_dict

_log = logging.getLogger(__name__)


def flatten_fields(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return every field by its dotted name: `{"data.name": "digits", ..., "seed": 0}`."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if isinstance(value, ConfigSection):
            flat |= flatten_fields(value, f"{prefix}{item.name}.")
        else:
            flat[prefix + item.name] = value
    return flat


def field_type(name: str) -> Any:
    """Return the annotated type of a field, given its dotted name."""
    section, _, leaf = name.rpartition(".")
    owner = typing.get_type_hints(ExperimentConfig)[section] if section else ExperimentConfig
    return typing.get_type_hints(owner)[leaf]


def override_fields(config: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """Return a validated copy of the experiment with fields replaced by dotted name.

    Raises:
      InputError: if a name is not a field, or a value is not valid.
    """
    known = flatten_fields(config)
    for name in changes:
        if name not in known:
            raise InputError(f"{name!r} is not a field of an experiment: the fields are {', '.join(known)}")
    return _rebuild(config, changes, "")


def _rebuild(section: Any, changes: Mapping[str, Any], prefix: str) -> Any:
    values = {}
    for item in dataclasses.fields(section):
        value, name = getattr(section, item.name), prefix + item.name
        nested = isinstance(value, ConfigSection)
        values[item.name] = _rebuild(value, changes, name + ".") if nested else changes.get(name, value)
    return type(section)(**values)


def field_differences(ours: ExperimentConfig, theirs: ExperimentConfig) -> tuple[str, ...]:
    """Return one phrase for each field that differs, such as `plan.batch_size: 24 instead of 16`."""
    left, right = (comparable_fields(each) for each in (ours, theirs))
    return tuple(f"{name}: {left[name]!r} instead of {right[name]!r}" for name in left if left[name] != right[name])


def comparable_fields(config: ExperimentConfig) -> dict[str, Any]:
    """Return every field by its dotted name, with functions by their names and the hashes of their files."""
    return {name: _with_functions(value, _label) for name, value in flatten_fields(config).items()}


def _label(function: Callable[..., Any]) -> str:
    return describe_function(function).label


def _with_functions(value: Any, replace: Callable[[Callable[..., Any]], Any]) -> Any:
    """A field's value with its functions replaced."""
    if callable(value):
        return replace(value)
    return {name: replace(each) for name, each in value.items()} if isinstance(value, Mapping) else value


def experiment_functions(config: ExperimentConfig) -> dict[str, Callable[..., Any]]:
    """Return the functions in an experiment by dotted names, such as `optimizer.name`, `evaluation.metrics.margin`."""
    fields = flatten_fields(config)
    alone = {name: value for name, value in fields.items() if callable(value)}
    mappings = {name: value for name, value in fields.items() if isinstance(value, Mapping)}
    return alone | {f"{name}.{key}": each for name, mapping in mappings.items() for key, each in mapping.items()}


def flat_experiment(config: ExperimentConfig) -> dict[str, Any]:
    """Return every field by its dotted name, with functions by their names."""
    return {name: _with_functions(value, function_name) for name, value in flatten_fields(config).items()}


def experiment_to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """Return the experiment as a JSON-compatible dictionary, with functions by their names."""
    return _section_to_dict(config)


def _section_to_dict(section: Any) -> dict[str, Any]:
    values = {item.name: getattr(section, item.name) for item in dataclasses.fields(section)}
    return {
        name: _section_to_dict(value) if isinstance(value, ConfigSection) else _with_functions(value, function_name)
        for name, value in values.items()
    }


def function_name(function: Callable[..., Any]) -> str:
    """Return the name by which a function is recorded."""
    return describe_function(function).name.rpartition(".")[2]


def model_name(config: ExperimentConfig) -> str:
    """Return the name of an experiment's network."""
    return function_name(config.model.name) if callable(config.model.name) else config.model.name


def experiment_from_dict(
    data: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] | None = None
) -> ExperimentConfig:
    """Return the experiment that `experiment_to_dict` wrote.

    A number that is null counts as infinite, and becomes the largest number that JSON can express: version 0.1 accepted
    infinity, and wrote null.

    Args:
      data: the dictionary.
      functions: those that replace the recorded names, as `experiment_functions` returns them.

    Raises:
      InputError: if fields are missing, unknown, or of the wrong type.
    """
    try:
        sections = {name: section for name, section in _sections().items() if name in data}
        values = {name: _tuples(_with_infinity(data[name], section, name)) for name, section in sections.items()}
        # The stages are recorded beside the experiment, so the function behind them no longer matters.
        values["plan"]["staged"] = "stepwise"
        for name, function in (functions or {}).items():
            section, leaf, *key = name.split(".")
            values[section][leaf] = {**values[section][leaf], key[0]: function} if key else function
        built = {name: section(**values[name]) for name, section in sections.items()}
        return ExperimentConfig(**{**dict(data), **built})
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the recorded experiment does not fit this version of stepwise-jax: {error}") from error


def experiment_from_document(document: Mapping[str, Any]) -> ExperimentConfig:
    """Return the experiment of a comparison or a sweep, without loading its functions.

    Args:
      document: `experiment`, as `experiment_to_dict` wrote it, and `functions`, the records of its functions by field.
        A function without a record gets a placeholder that has its name, and raises an `InputError` when it is called.

    Raises:
      InputError: as `experiment_from_dict`.
    """
    data = document["experiment"]
    unknown = {
        name: data[section][leaf]
        for name in ("plan.carry", "optimizer.name", "loss.name")
        for section, _, leaf in [name.partition(".")]
        if leaf in data.get(section, {}) and data[section][leaf] not in field_choices(name)
    }
    placeholders = {name: _placeholder(name, recorded) for name, recorded in unknown.items()}
    augmentation = data.get("data", {}).get("augmentation", ())
    if isinstance(augmentation, str):
        placeholders["data.augmentation"] = _placeholder("data.augmentation", augmentation)
    metrics = data.get("evaluation", {}).get("metrics", ())
    if isinstance(metrics, Mapping):
        placeholders |= {f"evaluation.metrics.{key}": _placeholder(key, each) for key, each in metrics.items()}
    recorded = {name: record_from_dict(each) for name, each in document.get("functions", {}).items()}
    return experiment_from_dict(data, placeholders | recorded)


def field_choices(name: str) -> tuple[str, ...]:
    """Return the names that a field takes, beside a function."""
    hint = field_type(name)
    named = (each for each in (hint, *typing.get_args(hint)) if typing.get_origin(each) is typing.Literal)
    return tuple(choice for hint in named for choice in typing.get_args(hint))


def _placeholder(field: str, name: Any) -> Callable[..., Any]:
    def placeholder(*_: object, **__: object) -> typing.NoReturn:
        raise InputError(f"{field}: only the name of the function {name!r} is known here, not the function")

    placeholder.__name__ = placeholder.__qualname__ = str(name)
    return placeholder


def _sections() -> dict[str, Callable[..., Any]]:
    hints = typing.get_type_hints(ExperimentConfig)
    return {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}  # pyright: ignore


def _with_infinity(section: Mapping[str, Any], owner: Any, prefix: str) -> dict[str, Any]:
    """The fields of a section with a number for each null where only a number is allowed."""
    hints = typing.get_type_hints(owner)
    missing = [name for name, value in section.items() if value is None and hints.get(name) is float]
    for name in missing:
        _note_infinity(f"{prefix}.{name}")
    return {**section, **dict.fromkeys(missing, sys.float_info.max)}


@functools.cache
def _note_infinity(name: str) -> None:
    _log.warning("the recorded %s is null, which version 0.1 wrote for infinity: it counts as infinite", name)


def _tuples(section: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}
