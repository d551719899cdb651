"""Memory in huge pages, which the C library must be told of before a process begins."""

import os
import sys
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb=1"
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def start_anew_with_huge_pages() -> None:
    """Replaces this process by itself with huge pages, on a Linux that gives them to those who ask.

    A training step on a CPU takes gigabytes and gives them back; each of its page faults then maps 2 MB instead of
    4 kB. Nothing happens where the pages are given to all or to none, or where the user has set GLIBC_TUNABLES.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ or not _on_request():
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "GLIBC_TUNABLES": TUNABLE})


def _on_request() -> bool:
    try:
        return "[madvise]" in _SETTING.read_text()
    except OSError:
        return False
