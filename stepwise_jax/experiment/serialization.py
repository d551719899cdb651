"""Flattens an experiment to dotted names, overrides and compares fields, and converts to and from dictionaries."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig, StrategyName


def flatten_fields(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return every field by its dotted name: `{"data.name": "digits", ..., "seed": 0}`."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
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
        nested = dataclasses.is_dataclass(value)
        values[item.name] = _rebuild(value, changes, name + ".") if nested else changes.get(name, value)
    return type(section)(**values)


def field_differences(ours: ExperimentConfig, theirs: ExperimentConfig) -> tuple[str, ...]:
    """Return one phrase for each field that differs, such as `plan.batch_size: 24 instead of 16`."""
    left, right = flatten_fields(ours), flatten_fields(theirs)
    return tuple(f"{name}: {left[name]!r} instead of {right[name]!r}" for name in left if left[name] != right[name])


def experiment_to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """Return the experiment as a JSON-compatible dictionary, with a user-defined strategy by its name."""
    data = dataclasses.asdict(config)
    for name in ("strategy", "staged"):
        if callable(data["plan"][name]):
            data["plan"][name] = getattr(data["plan"][name], "__name__", "function")
    return data


def experiment_from_dict(data: Mapping[str, Any], strategy: Callable[..., Any] | None = None) -> ExperimentConfig:
    """Return the experiment that `experiment_to_dict` wrote.

    Args:
      data: the dictionary.
      strategy: the function that replaces the recorded name of a user-defined strategy.

    Raises:
      InputError: if fields are missing, unknown, or of the wrong type.
    """
    try:
        sections = {name: section for name, section in _sections().items() if name in data}
        values = {name: section(**_tuples(data[name])) for name, section in sections.items() if name != "plan"}
        plan = _tuples(data["plan"])
        if strategy is not None:
            plan["strategy"] = strategy
        # The stages are recorded beside the experiment, so the function behind them no longer matters.
        plan["staged"] = "stepwise"
        values["plan"] = PlanConfig(**plan)
        return ExperimentConfig(**{**dict(data), **values})
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"the recorded experiment does not fit this version of stepwise-jax: {error}") from error


def experiment_from_dict_by_name(data: Mapping[str, Any]) -> ExperimentConfig:
    """Return the experiment that `experiment_to_dict` wrote, with a placeholder for a user-defined strategy.

    The placeholder has the name of the strategy, and raises an `InputError` when it is called.

    Raises:
      InputError: as `experiment_from_dict`.
    """
    name = data["plan"]["strategy"]

    def placeholder(*_: object) -> typing.NoReturn:
        raise InputError(f"only the name of the strategy {name!r} is known here, not its function")

    placeholder.__name__ = str(name)
    return experiment_from_dict(data, None if name in typing.get_args(StrategyName) else placeholder)


def _sections() -> dict[str, Callable[..., Any]]:
    hints = typing.get_type_hints(ExperimentConfig)
    return {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}  # pyright: ignore


def _tuples(section: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}
