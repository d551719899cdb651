"""Tables of comparisons and sweeps."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from stepwise_jax.cli.console import make_console, print_prose
from stepwise_jax.formatting import describe_scores, format_percent
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_table import COMPARISON_HEADER, FinishedRuns, comparison_rows, verdict
from stepwise_jax.studies.statistics.paired import Difference
from stepwise_jax.studies.sweep import BEST_FOLDER, varying_fields
from stepwise_jax.workdir.records import row_metrics


def print_comparison(
    comparison: Comparison, runs: FinishedRuns, differences: Sequence[Difference], stream: TextIO | None = None
) -> None:
    """Prints the strategies, with as many columns as there is room for, and the verdict, by default on stdout."""
    console = make_console(stream)
    rows = comparison_rows(comparison, runs, differences)
    widths = _column_widths(rows)
    # Each column is followed by a space of padding and one of the box.
    ends = list(accumulate(width + 2 for width in widths))
    columns = sum(end <= console.width for end in ends)
    if columns < _ESSENTIAL_COLUMNS:
        _print_stacked(console, rows)
    else:
        _print_table(console, rows, widths[:columns])
    print_prose(console, verdict(comparison.arms[0].name, differences))


_ESSENTIAL_COLUMNS = COMPARISON_HEADER.index("95 % over seeds")
_STACKED_COLUMNS = _ESSENTIAL_COLUMNS + 1


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The widths that leave all cells whole; headings may break between words."""
    words = [max(map(len, name.split())) for name in COMPARISON_HEADER]
    return [max(word, *map(len, cells)) for word, cells in zip(words, zip(*rows, strict=True), strict=True)]


def _print_table(console: Console, rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for index, (name, width) in enumerate(zip(COMPARISON_HEADER, widths, strict=False)):
        table.add_column(name, justify="right" if index else "left", width=width)
    for row in rows:
        table.add_row(*row[: len(widths)])
    console.print(table)


def _print_stacked(console: Console, rows: Sequence[Sequence[str]]) -> None:
    """Prints each name on a line of its own, and the first columns below it."""
    for name, *values in rows:
        console.print(name, soft_wrap=True)
        shown = zip(COMPARISON_HEADER[1:_STACKED_COLUMNS], values, strict=False)
        console.print(Padding("; ".join(f"{title} {value}" for title, value in shown), (0, 0, 0, 2)))


_SHOWN_POINTS = 20


def print_results(results: dict[str, Any], stream: TextIO | None = None) -> None:
    """Prints the best points, the test score of the best one, and the failures, by default on stdout."""
    names = varying_fields(results)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    fields = [name.removeprefix("plan.") for name in names]
    for index, column in enumerate((*fields, "held-out top-1", "samples planned", "updates")):
        table.add_column(column, justify="right" if index else "left")
    for each in results["points"][:_SHOWN_POINTS]:
        values = (each["point"].get(name, "–") for name in names)
        table.add_row(*values, format_percent(each["top1"]), f"{each['samples']:,}", f"{each['updates']:,}")
    console = make_console(stream)
    console.print(table)
    test = results["test"]
    score = "its test run failed"
    if test is not None:
        score = f"test {describe_scores(row_metrics(test), test.get('test_images'))}"
    for each in results["failures"]:
        console.print(f"FAILED: {each['run']}: {each['message']}", soft_wrap=True)
    best = ", ".join(f"{name} {value}" for name, value in results["best"].items() if name in names)
    console.print(f"best of {len(results['points'])} points: {best}: {score} ({BEST_FOLDER}/)", soft_wrap=True)
