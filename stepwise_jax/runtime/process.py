"""Process settings: quiet libraries, garbage collection, memory allocation, and a prompt exit."""

import contextlib
import gc
import logging
import os
import sys
import threading
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn

from stepwise_jax.runtime import threads
from stepwise_jax.runtime.signals import block_signals, unblock_signals


def silence_orbax() -> None:
    """Keeps a process's stderr to our sentences; errors themselves are raised as ever."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Writes that wait while another one fails are never begun.
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
    ignore_abandoned_reads()


def ignore_abandoned_reads() -> None:
    """Keeps Python from telling of what nobody waits for any more, when it comes to its end or is collected."""
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # TensorStore's threads report to whoever waited for them, and print that nobody does any more.
        said = str(unraisable.exc_value)
        closed = said == "Event loop is closed" or (said.startswith("coroutine") and said.endswith("never awaited"))
        # Where one read of a checkpoint fails, the others are given up on the way.
        given_up = isinstance(getattr(unraisable.exc_value, "__cause__", None), GeneratorExit)
        if not closed and not given_up:
            shown(unraisable)

    sys.unraisablehook = hook


def exit_process(status: int) -> NoReturn:
    """Ends the process, without waiting for what compiles in the background, nor for threads of a save that failed.

    Either may take minutes, and nobody needs it any more.
    """
    if threads.is_busy() or any(type(thread).__name__ == "_SignalingThread" for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        _part()
        os._exit(status)
    sys.exit(status)


def _part() -> None:
    """Tells the other processes of a run, where there are any, that this one leaves: they would wait for it."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        jax.distributed.shutdown()


_ALLOCATIONS = (50_000, 20, 50)
"""Beside those of a kind that are still there: of new objects, then of younger collections."""


def collect_garbage_rarely() -> None:
    """Has Python go through its objects a hundredth as often.

    JAX traces into a great many small objects that stay: going through all of them takes a third of a second by the end
    of a deep network's tracing, and fell where a stage began.
    """
    gc.set_threshold(*_ALLOCATIONS)


ENVIRONMENT = {
    # Huge pages where Linux gives them on request; never a block by mmap where the heap will do, and none handed back.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776",
}


def with_malloc_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with `ENVIRONMENT`, or as it is where the user has set GLIBC_TUNABLES or another system runs."""
    return {**environment, **ENVIRONMENT} if _is_open(environment) else dict(environment)


def restart_with_malloc_settings() -> None:
    """Replaces this process by itself with those settings, if it has not got them.

    A training step on a CPU takes hundreds of megabytes and gives them back. If they went back to the system, the next
    step would wait for as many cleared pages.
    """
    if not _is_open(os.environ):
        return unblock_signals()
    # Until the new process has its own handlers, a signal would end it without a word, or not at all.
    block_signals()
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], with_malloc_settings(os.environ))
    finally:
        unblock_signals()


def compute_in_main_thread() -> None:
    """Has JAX run what the main thread calls in that thread on a CPU, if this process has those settings.

    The C library has a heap that is never handed back for the main thread alone. JAX's own threads would map and unmap
    a step's memory anew each time. It must come before JAX has devices; its environment has no word for it.
    """
    if os.environ.items() >= ENVIRONMENT.items():
        import jax

        # An option that some version no longer has is no reason not to train.
        with contextlib.suppress(AttributeError):
            jax.config.update("jax_cpu_enable_async_dispatch", False)


def _is_open(environment: Mapping[str, str]) -> bool:
    return sys.platform == "linux" and environment.keys().isdisjoint(ENVIRONMENT)
