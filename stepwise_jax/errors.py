"""What ends a run before its end, each with the exit status that scripts rely on."""

import textwrap


def first_line(error: BaseException) -> str:
    """What a library's error says in a line that fits into a sentence, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[0], 200, placeholder=" ...") if lines else type(error).__name__


def describe_error(error: BaseException) -> str:
    """The same with the error's kind before it, for what the user's own code raised."""
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether JAX raised an error because a device has no memory left."""
    return isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


class StepwiseError(Exception):
    """A failure that is told in one sentence; `status` is the exit status of the process."""

    status = 1
    on_all_processes = False
    """Whether all processes of a run raise it, at the same place."""


class InputError(StepwiseError, ValueError):
    """Something that the user gave cannot be used; raised before anything expensive starts."""

    status = 2


class NonFiniteLossError(StepwiseError):
    """The training loss became infinite or NaN."""

    status = 3
    on_all_processes = True


class SaveError(StepwiseError):
    """Something could not be written: the disk is full or read-only, say."""


class DeviceMemoryError(StepwiseError):
    """A device has no memory left for a stage."""


class InterruptedRunError(StepwiseError):
    """A signal stopped the run after a checkpoint was written; running it again goes on."""

    status = 75
    on_all_processes = True


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Raises an `InputError` that names a field, its value and what would be right, unless `condition` holds."""
    if not condition:
        raise InputError(f"{name} is {value!r}: it must be {wanted}")
