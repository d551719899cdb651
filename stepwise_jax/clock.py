"""Where the seconds of a run go, by kind."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from stepwise_jax.records import SECONDS


class Clock:
    """Adds up seconds by kind until they are taken."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(SECONDS, 0.0)

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Adds the time that the block takes to `kind`, also where it raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[kind] += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """The seconds so far."""
        return dict(self._seconds)

    def reset(self, seconds: Mapping[str, float] | None = None) -> None:
        """Starts from zero, or from what an earlier process measured of the same epoch."""
        self._seconds = {kind: (seconds or {}).get(kind, 0.0) for kind in SECONDS}
