"""Tables of comparisons and sweeps."""

from collections.abc import Sequence
from typing import Any, TextIO

from rich import box
from rich.table import Table

from stepwise_jax.cli.console import make_console
from stepwise_jax.formatting import format_percent
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_table import HEADER, Runs, rows, verdict
from stepwise_jax.studies.statistics import Difference
from stepwise_jax.studies.sweep import BEST, varying


def print_comparison(
    compared: Comparison, runs: Runs, differences: Sequence[Difference], stream: TextIO | None = None
) -> None:
    """The table and the verdict, on stdout by default."""
    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(HEADER):
        table.add_column(name, justify="right" if place else "left", no_wrap=place > 0)
    for row in rows(compared, runs, differences):
        table.add_row(*row)
    console = make_console(stream)
    console.print(table)
    console.print(verdict(compared.strategies[0].name, differences), soft_wrap=True)


_SHOWN = 20


def print_results(results: dict[str, Any], stream: TextIO | None = None) -> None:
    """The best points, what the best one scored on the test set, and what failed."""
    names = varying(results)
    table = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(
        (*(name.removeprefix("plan.") for name in names), "held-out top-1", "samples", "updates")
    ):
        table.add_column(name, justify="right" if place else "left")
    for each in results["points"][:_SHOWN]:
        values = (each["point"].get(name, "–") for name in names)
        table.add_row(*values, format_percent(each["top1"]), f"{each['samples']:,}", f"{each['updates']:,}")
    console = make_console(stream)
    console.print(table)
    test = results["test"]
    reached = "its test run failed"
    if test is not None:
        reached = f"test top-1 {format_percent(test['top1'])}, top-5 {format_percent(test['top5'])}"
    for each in results["failures"]:
        console.print(f"FAILED: {each['run']}: {each['message']}", soft_wrap=True)
    best = ", ".join(f"{name} {value}" for name, value in results["best"].items() if name in names)
    console.print(f"best of {len(results['points'])} points: {best}: {reached} ({BEST}/)", soft_wrap=True)
