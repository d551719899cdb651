"""`python -m stepwise_jax`, and the command `stepwise`."""

import sys
from pathlib import Path
from typing import NoReturn

if not __package__:
    # Started by its path, as jobs of a study are: its own folder holds modules with names of other packages.
    sys.path[0] = str(Path(__file__).resolve().parents[1])


def start() -> NoReturn:
    """Runs the command of this process's arguments, and ends the process."""
    from stepwise_jax.runtime.streams import tolerate_lost_streams

    # Before any file is opened, which would take the place of a closed stream.
    tolerate_lost_streams()
    if sys.argv[1:2] == ["train"]:
        # Before anything that takes seconds to import: a signal ends the process with a sentence.
        from stepwise_jax.runtime.signals import exit_on_signals

        exit_on_signals()
    from stepwise_jax.cli.main import run

    run()


if __name__ == "__main__":
    start()
