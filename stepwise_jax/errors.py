"""Errors that end a command early, each with the exit status that scripts rely on."""

import textwrap


def first_line(error: BaseException) -> str:
    """The first line of an error's message, shortened to 200 characters, or the error's type if it has no message."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 200, placeholder=" ...") if lines else type(error).__name__


def describe_error(error: BaseException) -> str:
    """`first_line` after the error's type, for errors in the user's own code."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether JAX raised the error because a device ran out of memory."""
    return isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


class StepwiseError(Exception):
    """A failure that is reported in one sentence, without a traceback."""

    status = 1
    """The exit status of the process."""
    on_all_processes = False
    """Whether all processes of a run raise the error, at the same point."""


class InputError(StepwiseError, ValueError):
    """Invalid input from the user; raised before anything expensive starts."""

    status = 2


class NonFiniteLossError(StepwiseError):
    """The training loss became infinite or NaN."""

    status = 3
    on_all_processes = True


class SaveError(StepwiseError):
    """A file could not be written, for example because the disk is full or read-only."""


class ReadError(StepwiseError):
    """A file cannot be read, for a reason that may pass: nothing is known of its contents."""


class DeviceMemoryError(StepwiseError):
    """A device has too little memory for a stage."""


class InterruptedRunError(StepwiseError):
    """A signal stopped the run after a checkpoint was written; the same command resumes the run."""

    status = 75
    on_all_processes = True


def require(condition: bool, name: str, value: object, requirement: str) -> None:
    """Checks a value.

    Raises:
      InputError: unless `condition` is true; the message gives the name, the value and the requirement.
    """
    if not condition:
        raise InputError(f"{name} is {value!r}: it must be {requirement}")
