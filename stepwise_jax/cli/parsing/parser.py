"""The argument parser: what is wrong with a command line is one sentence."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from stepwise_jax.errors import InputError
from stepwise_jax.formatting import program_name, suggest

_KINDS = {"int": "a whole number", "float": "a number"}
"""What an option must be, by the name of the type that argparse reports."""


class ArgumentParser(argparse.ArgumentParser):
    """Argparse's parser with options written out in full, and errors as `InputError` instead of usage and exit."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise the error that argparse found, in the form of all others."""
        raise InputError(_reword(message, self.prog))


def check_commas(arguments: Sequence[str]) -> None:
    """Check that no list is written with spaces after its commas.

    Raises:
      InputError: for words such as `--strategies a, b`.
    """
    for option, first, second in zip(arguments, arguments[1:], arguments[2:], strict=False):
        if option.startswith("--") and first.endswith(",") and not second.startswith("-"):
            raise InputError(f"{option} {first} {second}: a list has no spaces: write {option} {first}{second}")


def _reword(message: str, command: str) -> str:
    """Argparse's message as one sentence of ours."""
    if choice := re.fullmatch(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message):
        commands = re.findall(r"[\w-]+", choice[2])
        return f"{choice[1]!r} is no command: {program_name()} has {', '.join(commands)}{suggest(choice[1], commands)}"
    if missing := re.fullmatch(r"the following arguments are required: (.*)", message):
        return f"{command.split()[-1]} needs {missing[1]}: {command} --help shows how"
    if value := re.fullmatch(r"argument (\S+): invalid (\w+) value: (.*)", message):
        return f"{value[1]} is {value[3]}: it must be {_KINDS.get(value[2], 'of another kind')}"
    if value := re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message):
        choices = re.findall(r"[\w-]+", value[3])
        return f"{value[1]} is {value[2]!r}: it must be one of {', '.join(choices)}{suggest(value[2], choices)}"
    return message.removeprefix("argument ")
