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
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # TensorStore's threads report to whoever waited for them, and print that nobody does any more.
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = hook


def leave(status: int) -> NoReturn:
    """Ends the process, without waiting for what compiles in the background, nor for threads of a save that failed.

    Either may take minutes, and nobody needs it any more.
    """
    if background.is_busy() or any(type(thread).__name__ == "_SignalingThread" for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
