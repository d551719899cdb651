"""Work done ahead of its use, in order and within bounds."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 32


def run_ahead(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Future[Result]]:
    """Futures of `function` over the items, in their order, with a bounded number of them under way.

    Those not yet begun are cancelled when the iterator is closed before its end.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for future in waiting:
            future.cancel()
