"""What libraries do of their own at the edge of a process: tracebacks of what a sentence tells, waiting at its end."""

import logging
import os
import sys
import threading
import warnings
from typing import Any, NoReturn

from stepwise_jax import background


def quieten_orbax() -> None:
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


def leave(status: int) -> NoReturn:
    """Ends the process, without waiting for what compiles in the background, nor for threads of a save that failed.

    Either may take minutes, and nobody needs it any more.
    """
    if background.is_busy() or any(type(thread).__name__ == "_SignalingThread" for thread in threading.enumerate()):
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
