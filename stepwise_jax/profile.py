"""A trace of one epoch by JAX's profiler: what the host and the devices do, and when."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax

from stepwise_jax.errors import require
from stepwise_jax.plans.stage import Stage

FOLDER = "profile"


@dataclass(frozen=True)
class Profile:
    """The epoch that is traced."""

    stage: int
    """Place in the plan, from 1."""
    epoch: int
    """Within the stage, from 1."""


def parse_profile(text: str, stages: Sequence[Stage]) -> Profile:
    """The epoch that `STAGE:EPOCH` names.

    Raises:
      InputError: for other words, or where the plan has no such epoch.
    """
    stage, separator, epoch = text.partition(":")
    digits = separator and stage.isdecimal() and epoch.isdecimal()
    require(bool(digits), "--profile", text, "STAGE:EPOCH, two whole numbers from 1, such as 1:2")
    number = int(stage)
    require(1 <= number <= len(stages), "--profile", text, f"STAGE:EPOCH with a stage from 1 to {len(stages)}")
    last = stages[number - 1].epochs
    require(1 <= int(epoch) <= last, "--profile", text, f"STAGE:EPOCH with an epoch from 1 to {last} of that stage")
    return Profile(number, int(epoch))


@contextmanager
def traced(folder: Path) -> Iterator[None]:
    """Traces what the block does, into files that TensorBoard, XProf and Perfetto open."""
    options = jax.profiler.ProfileOptions()
    # Every call of every Python function would drown what matters.
    options.python_tracer_level = 0
    jax.profiler.start_trace(folder, create_perfetto_trace=True, profiler_options=options)
    try:
        yield
    finally:
        jax.profiler.stop_trace()
