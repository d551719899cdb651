"""Numbers and names as people read them."""

import sys
from pathlib import Path


def program_name() -> str:
    """The command as its user types it: `stepwise` where the package is installed, `python launch.py` in a clone."""
    started = Path(sys.argv[0])
    installed = started.stem == "stepwise" or started.parts[-2:] == ("stepwise_jax", "__main__.py")
    return "stepwise" if installed else "python launch.py"


def replace_unprintable(name: str) -> str:
    """A name that can be drawn and written: that of a folder or of a class may be no text, or have line ends in it."""
    return "".join(character if character.isprintable() else "\ufffd" for character in name)


def format_percent(fraction: float | None) -> str:
    """An accuracy as people read it: fractions in files, per cent on screen, a dash where none was measured."""
    return "–" if fraction is None else f"{100 * fraction:.2f} %"


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def format_mib(count: int) -> str:
    """Bytes in MiB, with a digit after the point: `1,234.5`."""
    return f"{count / 2**20:,.1f}"
