"""The classes of an image, best first, as data and as a person reads them; imports no JAX."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepwise_jax.formatting import percent

Row = Mapping[str, Any]


def print_ranked(rows: Sequence[Row], stream: TextIO | None = None) -> None:
    """Prints the classes of each image, by default on stdout: a table on a terminal, else one line an image."""
    target: TextIO = sys.stdout if stream is None else stream
    told = [
        (row["image"], ", ".join(f"{each['name']} {percent(each['probability'])}" for each in row["classes"]))
        for row in rows
    ]
    if not target.isatty():
        target.writelines(f"{image}: {classes}\n" for image, classes in told)
        return
    table = Table("image", "classes, best first", box=box.SIMPLE_HEAD, show_edge=False)
    for image, classes in told:
        table.add_row(Text(image, overflow="fold"), Text(classes))
    Console(file=target, highlight=False).print(table)
