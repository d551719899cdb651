"""Tables of `bench`: training steps, and images a second."""

from collections.abc import Mapping
from typing import Any, TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from stepwise_jax.cli.console import make_console

HEADER = (
    "network",
    "precision",
    "batch",
    "images/s",
    "ms a step",
    "images/s alone",
    "ms alone",
    "compile s",
    "peak MiB",
    "GFLOP a step",
    "of peak",
)


def format_rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The rows of a document of `steps.measure` as text under `HEADER`. A failed case's row ends with its error."""
    return [_row(row) for row in document["rows"]]


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    case = (row["network"], row["precision"], str(row["batch_size"]))
    if "error" in row:
        return (*case, row["error"])
    fields = ("images_per_second", "milliseconds", "images_per_second_alone", "milliseconds_alone")
    compiled = f"{row['compile_seconds']:.1f}" + (" (cached)" if row["compile_cached"] else "")
    share = "unknown" if row["of_peak"] is None else f"{100 * row['of_peak']:.1f} %"
    flops = "unknown" if row["flops"] is None else f"{row['flops'] / 1e9:,.1f}"
    return (
        *case,
        *(f"{row[name]:,.1f}" for name in fields),
        compiled,
        f"{row['peak_bytes'] / 2**20:,.0f}",
        flops,
        share,
    )


def print_steps(document: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Prints the table and the failed cases below it, by default on stdout."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for index, name in enumerate(HEADER):
        table.add_column(name, justify="right" if index > 1 else "left", no_wrap=index < 3)
    all_rows = format_rows(document)
    for row in all_rows:
        table.add_row(*(row if len(row) == len(HEADER) else (*row[:3], "failed")))
    console = make_console(stream)
    console.print(Text(_title(document), style="bold"))
    console.print(table)
    for row in all_rows:
        if len(row) != len(HEADER):
            console.print(Text(f"{row[0]}, {row[1]}, batch {row[2]} failed: {row[3]}"), soft_wrap=True)


def _title(document: Mapping[str, Any]) -> str:
    side, steps = document["image_size"], document["steps_per_call"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    devices = f"{document['devices']} x {document['device']}"
    return f"{devices}, images {side} x {side}, {steps} step{'s' * (steps > 1)} a call; {versions}"


def print_throughput(document: Mapping[str, Any], side: int, image_size: int, stream: TextIO | None = None) -> None:
    """Prints the speeds of the loaders, by default on stdout.

    Args:
      document: the document of `input.measure_data`.
      side: height and width of the JPEGs, in pixels.
      image_size: height and width that they are scaled to.
      stream: where to print.
    """
    title = f"JPEG {side} x {side} ({document['jpeg_bytes'] / 1024:.0f} KiB) to {image_size} x {image_size}, "
    table = Table(
        title=title + f"{document['cores']} cores",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("way")
    for name in ("images/s", "per core", "of whole", "of reduced"):
        table.add_column(name, justify="right")
    for row in document["rows"]:
        speeds = (f"{row[name]:,.0f}" for name in ("images_per_second", "per_core"))
        shares = (f"{100 * row[name]:.0f} %" for name in ("of_bare", "of_bare_reduced"))
        table.add_row(row["way"], *speeds, *shares)
    console = make_console(stream)
    console.print(table)
    peaks = ", ".join(f"{peak / 2**30:.2f}" for peak in document["peak_bytes"])
    console.print(Text(f"peak memory of the process after each epoch of streaming: {peaks} GiB"))
