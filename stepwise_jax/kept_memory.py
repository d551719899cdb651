"""Memory that stays with the process and lies in huge pages, which is settled before a process begins."""

import contextlib
import os
import sys
from collections.abc import Mapping

from stepwise_jax.interruption import hold_signals_back, receive_signals

ENVIRONMENT = {
    # Huge pages where Linux gives them on request; never a block by mmap where the heap will do, and none handed back.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776",
}


def with_kept_memory(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with `ENVIRONMENT`, or as it is where the user has set GLIBC_TUNABLES or another system runs."""
    return {**environment, **ENVIRONMENT} if _is_open(environment) else dict(environment)


def start_anew_with_kept_memory() -> None:
    """Replaces this process by itself with those settings, if it has not got them.

    A training step on a CPU takes hundreds of megabytes and gives them back. If they went back to the system, the next
    step would wait for as many cleared pages.
    """
    if not _is_open(os.environ):
        return receive_signals()
    # Until the new process has its own handlers, a signal would end it without a word, or not at all.
    hold_signals_back()
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], with_kept_memory(os.environ))
    finally:
        receive_signals()


def take_memory_in_the_main_thread() -> None:
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
