"""Where the seconds of a run go, by kind, and a profiler trace of one epoch."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax

from stepwise_jax.errors import require
from stepwise_jax.plans.stage import Stage
from stepwise_jax.workdir.records import SECONDS


class Timer:
    """Adds up seconds by kind until they are taken; what is measured within another measurement counts once."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(SECONDS, 0.0)
        self._inner = 0.0
        self._aside = 0.0
        self._paused: float | None = None

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Adds the time that the block takes to `kind`, also where it raises."""
        start, outer, self._inner = time.perf_counter(), self._inner, 0.0
        try:
            yield
        finally:
            whole = time.perf_counter() - start
            own = whole - self._inner
            self._seconds[kind] += own
            self._aside += own if kind in ("evaluate", "checkpoint") else 0.0
            self._inner = outer + whole

    def read(self) -> dict[str, float]:
        """The seconds so far."""
        return dict(self._seconds)

    def reset(self, seconds: Mapping[str, float] | None = None) -> None:
        """Starts from zero, or from what an earlier process measured of the same epoch."""
        self._seconds = {kind: (seconds or {}).get(kind, 0.0) for kind in SECONDS}

    def pause(self) -> None:
        """The last step of a stage is done."""
        self._paused = time.perf_counter() - self._aside

    def resume(self) -> float | None:
        """Seconds since the pause, evaluation and checkpoint aside; None where there was none."""
        if self._paused is None:
            return None
        seconds = time.perf_counter() - self._aside - self._paused
        self._paused = None
        return seconds


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
