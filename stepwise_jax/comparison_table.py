"""A comparison as rows of text, for the terminal and for the report."""

from collections.abc import Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_table import HEADER, Runs, rows, verdict
from stepwise_jax.studies.statistics import Difference


def print_comparison(
    compared: Comparison, runs: Runs, differences: Sequence[Difference], stream: TextIO | None = None
) -> None:
    """The table and the verdict, on stdout by default."""
    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(HEADER):
        table.add_column(name, justify="right" if place else "left", no_wrap=place > 0)
    for row in rows(compared, runs, differences):
        table.add_row(*row)
    # Names of rows may hold what Rich takes for markup.
    console = Console(file=stream, highlight=False, markup=False)
    console = console if console.is_terminal else Console(file=stream, highlight=False, markup=False, width=170)
    console.print(table)
    console.print(verdict(compared.strategies[0].name, differences), soft_wrap=True)
