"""The time that a run spends, by kind, and a profiler trace of one epoch."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax

from stepwise_jax.errors import require
from stepwise_jax.plans.stage import Stage
from stepwise_jax.workdir.records import TIME_KINDS


class Timer:
    """Add up seconds by kind. The time of a nested measurement counts only for the inner kind."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(TIME_KINDS, 0.0)
        self._inner = 0.0
        self._outside_training = 0.0
        self._paused: float | None = None

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Add the time of the block to `kind`, even if it raises."""
        start, outer, self._inner = time.perf_counter(), self._inner, 0.0
        try:
            yield
        finally:
            total = time.perf_counter() - start
            own = total - self._inner
            self._seconds[kind] += own
            self._outside_training += own if kind in ("evaluate", "checkpoint") else 0.0
            self._inner = outer + total

    def read(self) -> dict[str, float]:
        """Return the seconds so far."""
        return dict(self._seconds)

    def reset(self, seconds: Mapping[str, float] | None = None) -> None:
        """Restart from zero, or from the time that an earlier process measured for the same epoch."""
        self._seconds = {kind: (seconds or {}).get(kind, 0.0) for kind in TIME_KINDS}

    def pause(self) -> None:
        """Note that the last step of a stage is done."""
        self._paused = time.perf_counter() - self._outside_training

    def resume(self) -> float | None:
        """Return the seconds since `pause`, without evaluation and checkpoints, or None without a pause."""
        if self._paused is None:
            return None
        seconds = time.perf_counter() - self._outside_training - self._paused
        self._paused = None
        return seconds


@dataclass(frozen=True)
class ProfiledEpoch:
    """The epoch to trace."""

    stage: int
    """Number in the plan, from 1."""
    epoch: int
    """Number within the stage, from 1."""


def parse_profiled_epoch(text: str, stages: Sequence[Stage]) -> ProfiledEpoch:
    """Parse `STAGE:EPOCH`.

    Raises:
      InputError: for other text, or if the plan has no such epoch.
    """
    stage, separator, epoch = text.partition(":")
    digits = separator and stage.isdecimal() and epoch.isdecimal()
    require(bool(digits), "--profile", text, "STAGE:EPOCH, two whole numbers from 1, such as 1:2")
    number = int(stage)
    require(1 <= number <= len(stages), "--profile", text, f"STAGE:EPOCH with a stage from 1 to {len(stages)}")
    last = stages[number - 1].epochs
    require(1 <= int(epoch) <= last, "--profile", text, f"STAGE:EPOCH with an epoch from 1 to {last} of that stage")
    return ProfiledEpoch(number, int(epoch))


@contextmanager
def profiler_trace(folder: Path) -> Iterator[None]:
    """Trace the block into files that TensorBoard, XProf and Perfetto open."""
    options = jax.profiler.ProfileOptions()
    # Without the calls of Python functions, which would hide everything else.
    options.python_tracer_level = 0
    jax.profiler.start_trace(folder, create_perfetto_trace=True, profiler_options=options)
    try:
        yield
    finally:
        jax.profiler.stop_trace()
