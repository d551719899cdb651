"""Types of configuration fields: how they are checked, and what users read about them."""

import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from stepwise_jax.errors import require


def type_matches(value: object, hint: Any) -> bool:
    """Whether `value` is of the annotated type; an int serves as a float, a bool never as a number."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if origin in (types.UnionType, typing.Union):
        return any(type_matches(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(type_matches(item, args[0]) for item in value)
    if origin is Callable:
        return callable(value)
    if hint in (int, float):
        return isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint)


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", type(None): "None"}


def type_name(hint: Any) -> str:
    """A field's type as a user reads it: `a whole number`, `one of 'a', 'b'`, `a tuple, each a number`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_name(arg) for arg in args)
    if origin is tuple:
        return f"a tuple, each {type_name(args[0])}"
    if origin is Callable:
        return "a function"
    return _TYPE_NAMES.get(hint) or hint.__name__


class Section:
    """Checks every field's type at construction; `_prefix` is the section's place in dotted names."""

    _prefix: typing.ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self)).items():
            if not name.startswith("_"):
                value = getattr(self, name)
                require(type_matches(value, hint), self._prefix + name, value, type_name(hint))
        self._validate()

    def _validate(self) -> None:
        """Checks of values; types are right by now."""

    def _require(self, condition: bool, name: str, wanted: str) -> None:
        require(condition, self._prefix + name, getattr(self, name), wanted)
