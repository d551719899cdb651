"""The table of `plan --memory`."""

from collections.abc import Mapping
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stepwise_jax.formatting import mebibytes

_COLUMNS = ("arguments", "output", "donated", "temporaries", "code", "total")


def print_footprints(document: Mapping[str, Any], stream: TextIO) -> None:
    """Prints what `footprint.measure` returns."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title_justify="left")
    table.title = Text("Memory of one device, by batch size (MiB)")
    table.add_column("sets")
    for name in ("batch", "steps", *_COLUMNS):
        table.add_column(name, justify="right")
    for each in document["batches"]:
        sizes = [mebibytes(each[name]) for name in _COLUMNS]
        table.add_row(Text(", ".join(each["stages"])), str(each["batch_size"]), str(each["steps"]), *sizes)
    console = Console(file=stream, highlight=False, width=None if stream.isatty() else 120)
    console.print()
    console.print(table)
    largest = max(each["total"] for each in document["batches"])
    share = 100 * largest / document["device_memory"]
    state, there = mebibytes(document["state"]), mebibytes(document["device_memory"])
    for line in (
        "total: arguments + output - donated + temporaries + code, with the test images and a copy of the state "
        f"({state} MiB), which a checkpoint is written from",
        document["delivery"],
        f"the largest takes {share:.1f} % of the device's {there} MiB",
    ):
        console.print(Text(line))
