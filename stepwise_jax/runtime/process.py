"""Process settings: quiet libraries, garbage collection, memory allocation, open files, and a prompt exit."""

import contextlib
import gc
import logging
import os
import resource
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.runtime import threads
from stepwise_jax.runtime.signals import block_signals, unblock_signals


def silence_orbax() -> None:
    """Keep the log messages of Orbax and asyncio off stderr; errors are still raised."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Writes that are queued while another one fails never start.
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
    ignore_abandoned_reads()


def ignore_abandoned_reads() -> None:
    """Suppress Python's messages about asynchronous reads that were abandoned."""
    previous_hook = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # TensorStore's threads report their results to an event loop, and print an error if it is closed.
        text = str(unraisable.exc_value)
        closed = text == "Event loop is closed" or (text.startswith("coroutine") and text.endswith("never awaited"))
        # If one read of a checkpoint fails, the other reads are abandoned.
        abandoned = isinstance(getattr(unraisable.exc_value, "__cause__", None), GeneratorExit)
        if not closed and not abandoned:
            previous_hook(unraisable)

    sys.unraisablehook = hook


_MAX_DESCRIPTORS = 1 << 16
"""More open files than any run has; some systems have no limit, and slow down with a huge one."""


def raise_descriptor_limit() -> None:
    """Let this process open as many files as the system allows it: a large data set has one for each 128 MiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        # macOS refuses what is above another limit of its own.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def exit_process(status: int) -> NoReturn:
    """Exit without waiting for compilations in the background or for threads of a failed save.

    Either may take minutes, and nobody needs the result.
    """
    if threads.is_busy() or any(type(thread).__name__ == "_SignalingThread" for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        _disconnect()
        os._exit(status)
    sys.exit(status)


def _disconnect() -> None:
    """Disconnect from the other processes of a run, if any: they would wait for this one."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        jax.distributed.shutdown()


_GC_THRESHOLDS = (50_000, 20, 50)
"""The arguments of `gc.set_threshold`: new objects per young collection, then younger collections per older one."""


def collect_garbage_rarely() -> None:
    """Make Python's garbage collector run a hundred times less often.

    JAX's tracing creates many small objects that stay alive. By the end of tracing a deep network, a full collection
    takes a third of a second, and it used to happen at the start of a stage.
    """
    gc.set_threshold(*_GC_THRESHOLDS)


MALLOC_SETTINGS = {
    # Use huge pages if Linux grants them; allocate from the heap, not by mmap; return no memory to the system.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1099511627776",
}


def with_malloc_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with `MALLOC_SETTINGS`; unchanged if the user has set GLIBC_TUNABLES, or not on Linux."""
    return {**environment, **MALLOC_SETTINGS} if _can_set(environment) else dict(environment)


def restart_with_malloc_settings() -> None:
    """Restart this process with `MALLOC_SETTINGS`, unless it has them.

    A training step on a CPU allocates and frees hundreds of megabytes. If they were returned to the system, the next
    step would wait for as many cleared pages. Where it cannot be restarted, it continues as it is.
    """
    if not _can_set(os.environ):
        return unblock_signals()
    # Until the new process has its own handlers, a signal would end it without a message, or not at all.
    block_signals()
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], with_malloc_settings(os.environ))
    unblock_signals()


def compute_in_main_thread() -> None:
    """Make JAX run calls of the main thread in that thread on a CPU, if this process has `MALLOC_SETTINGS`.

    Only the main thread's heap is never returned to the system. JAX's own threads would map and unmap the memory of
    each step. Call it before JAX initialises its devices; no environment variable sets this option.
    """
    if os.environ.items() >= MALLOC_SETTINGS.items():
        import jax

        # A missing option in another version of JAX must not prevent training.
        with contextlib.suppress(AttributeError):
            jax.config.update("jax_cpu_enable_async_dispatch", False)


_IMPOSSIBLE_SETTINGS: dict[str, tuple[tuple[object, ...], str]] = {
    "jax_disable_jit": ((True,), "steps are compiled"),
    "jax_numpy_rank_promotion": (("raise",), "networks add vectors to maps"),
    "jax_transfer_guard": (("disallow", "disallow_explicit"), "batches and scores are transferred"),
}
"""Values of JAX's options under which nothing can be trained or scored, and why."""


def check_jax_settings() -> None:
    """Refuse options of JAX, set as environment variables for example, that every run would fail under.

    Raises:
      InputError: with the option.
    """
    import jax

    for name, (refused, reason) in _IMPOSSIBLE_SETTINGS.items():
        value = getattr(jax.config, name, None)
        if value in refused:
            raise InputError(f"{name.upper()} is {value!r}: it must not be, because {reason}")


_START_FILES = ("/jax/_src/xla_bridge.py", "/jax/_src/config.py")
"""Where JAX reads its options and finds its devices."""


def describe_failed_start(error: Exception) -> str | None:
    """Why JAX cannot start: an option has a value that it does not know, or a platform no device. None if it started.

    Args:
      error: raised by JAX, or by anything else.
    """
    places = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if not places or not places[-1].endswith(_START_FILES):
        return None
    settings = ", ".join(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("JAX_"))
    return f"JAX cannot start ({describe_error(error)}): the environment sets {settings or 'no option of it'}"


def _can_set(environment: Mapping[str, str]) -> bool:
    return sys.platform == "linux" and environment.keys().isdisjoint(MALLOC_SETTINGS)
