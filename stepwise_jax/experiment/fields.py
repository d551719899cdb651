"""Types of configuration fields: checks, and their names in messages."""

import dataclasses
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from stepwise_jax.errors import require


def type_matches(value: object, hint: Any) -> bool:
    """Whether `value` has the annotated type; an int is also a float, and a bool is never a number."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if origin in (types.UnionType, typing.Union):
        return any(type_matches(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(type_matches(item, args[0]) for item in value)
    if origin is Callable:
        return callable(value)
    if origin is Mapping:
        keys, values = args
        return isinstance(value, Mapping) and all(
            type_matches(key, keys) and type_matches(each, values) for key, each in value.items()
        )
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint)


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "True or False", type(None): "None"}

_PLURALS = {int: "whole numbers", float: "numbers", str: "strings"}


def type_name(hint: Any) -> str:
    """The name of a type in messages: `a whole number`, `one of 'a', 'b'`, `a tuple of numbers`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_name(arg) for arg in args)
    if origin is tuple:
        return f"a tuple of {_PLURALS.get(args[0]) or type_name(args[0])}"
    if origin is Callable:
        return "a function"
    if origin is Mapping:
        return f"a dictionary of names, each with {type_name(args[1])}"
    return _TYPE_NAMES.get(hint) or hint.__name__


def _is_finite(value: object) -> bool:
    """Whether every number in a field's value is finite, as a float."""
    if isinstance(value, tuple):
        return all(_is_finite(item) for item in value)
    try:
        return not isinstance(value, int | float) or math.isfinite(value)
    except OverflowError:
        return False


def make_plain(section: Any) -> None:
    """Replace lists by tuples, NumPy's numbers by Python's, and paths by text in the fields of a frozen dataclass."""
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        plain = _plain(value)
        if plain is not value:
            object.__setattr__(section, item.name, plain)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_plain, value))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    is_numpy = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    return value.item() if is_numpy else value


class ConfigSection:
    """Base class that checks every field's type at construction; `_prefix` precedes the names of its fields."""

    _prefix: typing.ClassVar[str] = ""

    def __post_init__(self) -> None:
        make_plain(self)
        for name, hint in typing.get_type_hints(type(self)).items():
            if not name.startswith("_"):
                value = getattr(self, name)
                require(type_matches(value, hint), self._prefix + name, value, type_name(hint))
        self._validate()
        for name in typing.get_type_hints(type(self)):
            if not name.startswith("_"):
                value = getattr(self, name)
                # JSON, in which the experiment is recorded, has no other numbers.
                require(_is_finite(value), self._prefix + name, value, "a finite number")

    def _validate(self) -> None:
        """Checks the values; the types have been checked before."""

    def _require(self, condition: bool, name: str, requirement: str) -> None:
        require(condition, self._prefix + name, getattr(self, name), requirement)
