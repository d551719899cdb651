"""Executes a sweep: the points of a grid, or those that a search asks for, and at the end the best one's test run."""

from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from stepwise_jax.formatting import percent
from stepwise_jax.studies.sweep import BEST, varying

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
        table.add_row(*values, percent(each["top1"]), f"{each['samples']:,}", f"{each['updates']:,}")
    console = Console(file=stream, highlight=False, markup=False)
    console = console if console.is_terminal else Console(file=stream, highlight=False, markup=False, width=170)
    console.print(table)
    test = results["test"]
    reached = (
        "its test run failed" if test is None else f"test top-1 {percent(test['top1'])}, top-5 {percent(test['top5'])}"
    )
    for each in results["failures"]:
        console.print(f"FAILED: {each['run']}: {each['message']}", soft_wrap=True)
    best = ", ".join(f"{name} {value}" for name, value in results["best"].items() if name in names)
    console.print(f"best of {len(results['points'])} points: {best}: {reached} ({BEST}/)", soft_wrap=True)
