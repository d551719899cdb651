"""The parameters of a strategy: its keyword arguments, with values from the text after its name.

`pacing:linear:start=0.1` gives the first parameter of `pacing` by its place and another by its name.
"""

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.fields import type_name
from stepwise_jax.formatting import suggest


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a strategy by name: all of its arguments but the plan and the examples."""
    arguments = inspect.signature(function).parameters
    return {name: each for name, each in arguments.items() if each.kind is each.KEYWORD_ONLY}


def describe_parameters(function: Callable[..., Any]) -> str:
    """Return the parameters of a strategy with their defaults, as they are written after its name."""
    parts = [
        name if each.default is each.empty else f"{name}={_format(each.default)}"
        for name, each in parameters_of(function).items()
    ]
    return "".join(f":{part}" for part in parts)


def parse_parameters(name: str, function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the values of a strategy's parameters.

    Args:
      name: of the strategy, for messages.
      function: the strategy.
      words: values in the order of the parameters, then any as NAME=VALUE.

    Raises:
      InputError: for a parameter that is unknown, missing or given twice, or a value of another type.
    """
    hints, known = typing.get_type_hints(function), parameters_of(function)
    values: dict[str, Any] = {}
    for place, word in enumerate(words):
        key, found, text = word.rpartition("=")
        key = key if found else _nth(name, known, place, word)
        require(key in known, f"a parameter of {name}", key, f"{_one_of(known)}{suggest(key, known)}")
        require(key not in values, f"{key} of {name}", text, "given once")
        values[key] = _parse(f"{key} of {name}", text, hints[key])
    missing = [key for key, each in known.items() if each.default is each.empty and key not in values]
    if missing:
        raise InputError(
            f"plan.strategy: {name} needs {' and '.join(missing)}, as {name}{describe_parameters(function)}"
        )
    return values


def _nth(name: str, known: dict[str, Any], place: int, word: str) -> str:
    require(place < len(known), f"a value after {name}", word, f"left out: it takes {len(known) or 'no'} parameters")
    return list(known)[place]


def _one_of(names: dict[str, Any]) -> str:
    return f"one of {', '.join(names)}" if names else "left out: it has none"


def _parse(what: str, text: str, hint: Any) -> Any:
    """The value of a text: a number, several with + between them, or one of some names."""
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        require(text in choices, what, text, f"{type_name(hint)}{suggest(text, choices)}")
        return text
    try:
        if typing.get_origin(hint) is tuple:
            return tuple(float(part) for part in text.split("+"))
        return hint(text)
    except ValueError:
        wanted = "numbers with + between them" if typing.get_origin(hint) is tuple else type_name(hint)
        raise InputError(f"{what} is {text!r}: it must be {wanted}") from None


def _format(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
