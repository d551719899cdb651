"""An experiment by dotted names and as JSON: flattened, overridden, compared, written and read."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig, StrategyName


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every field by its dotted name: `{"data.name": "digits", ..., "seed": 0}`."""
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{item.name}.")
        else:
            flat[prefix + item.name] = value
    return flat


def field_type(name: str) -> Any:
    """The annotated type of a field by its dotted name."""
    section, _, leaf = name.rpartition(".")
    owner = typing.get_type_hints(ExperimentConfig)[section] if section else ExperimentConfig
    return typing.get_type_hints(owner)[leaf]


def override(config: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment with fields replaced by dotted name, checked anew.

    Raises:
      InputError: for a name that is no field, or a value that is not valid.
    """
    known = flatten(config)
    for name in changes:
        if name not in known:
            raise InputError(f"{name!r} is no field of an experiment: the fields are {', '.join(known)}")
    return _rebuild(config, changes, "")


def _rebuild(section: Any, changes: Mapping[str, Any], prefix: str) -> Any:
    values = {}
    for item in dataclasses.fields(section):
        value, name = getattr(section, item.name), prefix + item.name
        nested = dataclasses.is_dataclass(value)
        values[item.name] = _rebuild(value, changes, name + ".") if nested else changes.get(name, value)
    return type(section)(**values)


def differences(ours: ExperimentConfig, theirs: ExperimentConfig) -> tuple[str, ...]:
    """One phrase for each field that differs: `plan.batch_size: 24 instead of 16`."""
    left, right = flatten(ours), flatten(theirs)
    return tuple(f"{name}: {left[name]!r} instead of {right[name]!r}" for name in left if left[name] != right[name])


def to_json(config: ExperimentConfig) -> dict[str, Any]:
    """The experiment as plain dictionaries, lists and scalars; a strategy of the user's own by its name."""
    data = dataclasses.asdict(config)
    for name in ("strategy", "staged"):
        if callable(data["plan"][name]):
            data["plan"][name] = getattr(data["plan"][name], "__name__", "function")
    return data


def from_json(data: Mapping[str, Any], strategy: Callable[..., Any] | None = None) -> ExperimentConfig:
    """The experiment that `to_json` wrote; `strategy` stands in where the run had a function of the user's own.

    Raises:
      InputError: for fields that are missing, unknown, or of another type.
    """
    try:
        sections = {name: section for name, section in _sections().items() if name in data}
        values = {name: section(**_tuples(data[name])) for name, section in sections.items() if name != "plan"}
        plan = _tuples(data["plan"])
        if strategy is not None:
            plan["strategy"] = strategy
        # The stages are on record beside it: which function they were derived from no longer counts.
        plan["staged"] = "stepwise"
        values["plan"] = PlanConfig(**plan)
        return ExperimentConfig(**{**dict(data), **values})
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"the recorded experiment does not fit this version of stepwise-jax: {error}") from error


def from_json_by_name(data: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment that `to_json` wrote, where of a strategy of the user's own no more than its name is known.

    Raises:
      InputError: as `from_json`.
    """
    name = data["plan"]["strategy"]

    def unknown(*_: object) -> typing.NoReturn:
        raise InputError(f"the strategy {name!r} is known by its name alone here")

    unknown.__name__ = str(name)
    return from_json(data, None if name in typing.get_args(StrategyName) else unknown)


def _sections() -> dict[str, Callable[..., Any]]:
    hints = typing.get_type_hints(ExperimentConfig)
    return {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}  # pyright: ignore


def _tuples(section: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}
