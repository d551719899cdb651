"""How often Python looks for garbage that refers to itself."""

import gc

_ALLOCATIONS = (50_000, 20, 50)
"""Beside those of a kind that are still there: of new objects, then of younger collections."""


def look_for_garbage_seldom() -> None:
    """Has Python go through its objects a hundredth as often.

    JAX traces into a great many small objects that stay: going through all of them takes a third of a second by the end
    of a deep network's tracing, and fell where a stage began.
    """
    gc.set_threshold(*_ALLOCATIONS)
