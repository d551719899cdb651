"""Work done by threads ahead of its use, in order and within bounds."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK_BYTES = 4 << 20


def run_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Future[Result]]:
    """Futures of `function` over the items, in their order, two for each core under way.

    Those not yet begun are cancelled when the iterator is closed before its end.
    """
    workers = cores()
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunk_length(bytes_each: float, most: int) -> int:
    """Items for one thread to take at a time: few enough to hold megabytes, enough to be worth its while."""
    return max(1, min(most, int(_CHUNK_BYTES / max(bytes_each, 1))))
