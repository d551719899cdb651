"""Where the seconds of a run go, by kind, and how long training pauses between two stages."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from stepwise_jax.workdir.records import SECONDS


class Clock:
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
