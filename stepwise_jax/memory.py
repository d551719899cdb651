"""Memory of a device that is not enough: told in one sentence, with what asked for it and what would ask for less."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from stepwise_jax.errors import DeviceMemoryError
from stepwise_jax.plans.stage import Stage

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

# XLA's sentences: "... trying to allocate 25.00GiB", "Attempting to reserve 15.5G", "Used 18.15G of 15.48G hbm",
# "request for 2147483648 bytes". What was asked for comes first in each.
_ASKED = re.compile(
    r"(?:allocat\w*|reserv\w*|request\w*|used)(?: for| request for)? (\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B|\b)", re.I
)


def bytes_asked(message: str) -> int | None:
    """The bytes that a device could not give, from XLA's message, or None where it does not say."""
    found = _ASKED.search(message)
    return round(float(found[1]) * _UNITS[found[2].upper()]) if found else None


def is_shortage(error: Exception) -> bool:
    """Whether JAX raised an error because a device has no memory left."""
    return isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


@contextmanager
def shortage_told(stage: Stage, number: int) -> Iterator[None]:
    """Turns what JAX raises where memory is short in stage `number`, from 1, into one sentence.

    Raises:
      DeviceMemoryError: with the stage, its batch size, the bytes asked for, and what to change.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_shortage(error):
            raise
        asked = bytes_asked(str(error))
        wanted = "" if asked is None else f" ({asked:,} bytes were asked for)"
        raise DeviceMemoryError(
            f"the device has no memory left in stage {number} ({stage.name}), batch size {stage.batch_size}{wanted}: "
            "a smaller plan.batch_size, last factors of plan.batch_multipliers, evaluation.batch_size or "
            "data.image_size, or --data.delivery streamed, needs less; what is saved is kept"
        ) from error
