"""stepwise-jax: train image classifiers in stages of growing data, and measure what that is worth.

python launch.py COMMAND --help describes each command.
"""

import sys

# Read by any Python 3, so that an old one, or one without the environment, gets a sentence instead of a traceback.
_NEEDED = ("jax", "flax", "optax", "rich", "tyro")


def main(arguments):
    """Runs one command and returns its exit status."""
    from stepwise_jax.cli.main import main as run

    return run(arguments)


def _missing():
    """What this Python lacks, in words; empty where nothing is missing."""
    if sys.version_info < (3, 11):  # noqa: UP036 (an old one is what this is about)
        return "is Python " + sys.version.split()[0] + ", and stepwise-jax needs 3.11 or newer"
    import importlib.util

    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    return "has no " + ", ".join(missing) if missing else ""


if __name__ == "__main__":
    missing = _missing()
    if missing:
        sys.stderr.write(
            "error: " + sys.executable + " " + missing + ": activate the environment (source .venv/bin/activate), or "
            "say .venv/bin/python launch.py; `make .venv` makes it\n"
        )
        sys.exit(2)
    from stepwise_jax.__main__ import start

    start()
