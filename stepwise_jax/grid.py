"""Runs the cells of a comparison or a search, with a display, on this machine's devices."""

from collections.abc import Sequence

from stepwise_jax.errors import require
from stepwise_jax.grid_display import make_grid_display
from stepwise_jax.runtime.signals import stop_on_signals
from stepwise_jax.studies.jobs import Cell, Failure
from stepwise_jax.studies.local_executor import default_processes, make_slots, run_cells


def check(processes: int) -> None:
    """Raises an `InputError` for a number of processes that there cannot be."""
    require(processes >= 0, "--processes", processes, "at least 1, or 0 for one a device or core")


def run(cells: Sequence[Cell], processes: int) -> list[Failure]:
    """Runs what is not finished and returns what failed.

    Args:
      cells: the runs.
      processes: how many at a time; 0 takes one a GPU, or one a core.

    Raises:
      InterruptedRunError: when a signal came; the runs are saved.
    """
    slots = make_slots(processes or default_processes())
    with stop_on_signals() as stop:
        display = make_grid_display(cells)
        try:
            return run_cells(cells, slots, display, stop)
        finally:
            display.finish()
