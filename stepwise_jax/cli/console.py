"""The console that tables are printed on."""

import sys
from typing import TextIO

from rich.console import Console

PIPE_WIDTH = 170
"""Columns without a terminal: wide, so that tables in pipes and files are not folded."""


def make_console(stream: TextIO | None = None) -> Console:
    """A console on a stream, by default stdout: as wide as its terminal, or `PIPE_WIDTH` columns without one."""
    target: TextIO = sys.stdout if stream is None else stream
    # Names of runs and classes may contain text that Rich would read as markup.
    return Console(file=target, highlight=False, markup=False, width=None if target.isatty() else PIPE_WIDTH)


def print_prose(console: Console, text: str) -> None:
    """Prints sentences: folded between words on a terminal, one line in pipes and files."""
    console.print(text, soft_wrap=not console.file.isatty())
