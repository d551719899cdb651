"""Memory that stays with the process and lies in huge pages, which is settled before a process begins."""

import os
import sys
from collections.abc import Mapping

ENVIRONMENT = {
    # Huge pages where Linux gives them on request; never a block by mmap where the heap will do, and none handed back.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776",
    # The C library has such a heap for the main thread alone: a step must take its memory there, not in a thread.
    "JAX_CPU_ENABLE_ASYNC_DISPATCH": "0",
}


def with_kept_memory(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with `ENVIRONMENT`, or as it is where the user has set GLIBC_TUNABLES or another system runs."""
    if sys.platform != "linux" or "GLIBC_TUNABLES" in environment:
        return dict(environment)
    return {**ENVIRONMENT, **environment}


def start_anew_with_kept_memory() -> None:
    """Replaces this process by itself with those settings, if it has not got them.

    A training step on a CPU takes hundreds of megabytes and gives them back. If they went back to the system, the next
    step would wait for as many cleared pages.
    """
    wanted = with_kept_memory(os.environ)
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)
