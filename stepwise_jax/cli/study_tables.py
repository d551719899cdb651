"""Tables of comparisons and sweeps."""

from collections.abc import Sequence
from typing import Any, TextIO

from rich import box
from rich.table import Table

from stepwise_jax.cli.console import make_console
from stepwise_jax.formatting import describe_scores, format_percent
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_table import COMPARISON_HEADER, FinishedRuns, comparison_rows, verdict
from stepwise_jax.studies.statistics.paired import Difference
from stepwise_jax.studies.sweep import BEST_FOLDER, varying_fields
from stepwise_jax.workdir.records import row_metrics


def print_comparison(
    comparison: Comparison, runs: FinishedRuns, differences: Sequence[Difference], stream: TextIO | None = None
) -> None:
    """Prints the table of strategies and the verdict, by default on stdout."""
    table = Table(box=box.SIMPLE_HEAD)
    for index, name in enumerate(COMPARISON_HEADER):
        table.add_column(name, justify="right" if index else "left", no_wrap=index > 0)
    for row in comparison_rows(comparison, runs, differences):
        table.add_row(*row)
    console = make_console(stream)
    console.print(table)
    console.print(verdict(comparison.arms[0].name, differences), soft_wrap=True)


_SHOWN_POINTS = 20


def print_results(results: dict[str, Any], stream: TextIO | None = None) -> None:
    """Prints the best points, the test score of the best one, and the failures, by default on stdout."""
    names = varying_fields(results)
    table = Table(box=box.SIMPLE_HEAD)
    fields = [name.removeprefix("plan.") for name in names]
    for index, column in enumerate((*fields, "held-out top-1", "samples", "updates")):
        table.add_column(column, justify="right" if index else "left")
    for each in results["points"][:_SHOWN_POINTS]:
        values = (each["point"].get(name, "–") for name in names)
        table.add_row(*values, format_percent(each["top1"]), f"{each['samples']:,}", f"{each['updates']:,}")
    console = make_console(stream)
    console.print(table)
    test = results["test"]
    score = "its test run failed"
    if test is not None:
        score = f"test {describe_scores(row_metrics(test))}"
    for each in results["failures"]:
        console.print(f"FAILED: {each['run']}: {each['message']}", soft_wrap=True)
    best = ", ".join(f"{name} {value}" for name, value in results["best"].items() if name in names)
    console.print(f"best of {len(results['points'])} points: {best}: {score} ({BEST_FOLDER}/)", soft_wrap=True)
