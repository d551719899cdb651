"""`python -m stepwise_jax`, and the command `stepwise`."""

import sys
from pathlib import Path
from typing import NoReturn

if not __package__:
    # Started by its path, as jobs of a study are: its own folder holds modules with names of other packages.
    sys.path[0] = str(Path(__file__).resolve().parents[1])


def start() -> NoReturn:
    """Runs the command of this process's arguments, and ends the process."""
    if sys.argv[1:2] == ["train"]:
        # Before anything that takes seconds to import: a signal ends the process with a sentence.
        from stepwise_jax.runtime.signals import exit_on_signals

        exit_on_signals()
    from stepwise_jax.cli.main import run

    run()


if __name__ == "__main__":
    start()
