"""How much memory a passage of a test takes at its peak."""

import contextlib
import tracemalloc
from collections.abc import Iterator


@contextlib.contextmanager
def at_most(limit: int) -> Iterator[None]:
    """Fail where Python and NumPy hold more than `limit` bytes at once inside.

    The peak of the process (`ru_maxrss`) would not do: it only ever rises, so that whatever ran before hides a passage,
    and a child inherits its parent's.
    """
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:,} bytes at once, more than {limit:,}"
