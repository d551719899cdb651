"""A comparison as rows of text, for the terminal and for the report."""

from collections.abc import Mapping, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from stepwise_jax.comparison import Comparison, Finished
from stepwise_jax.formatting import duration
from stepwise_jax.statistics import Difference, mean_and_deviation
from stepwise_jax.verdict import chance, points, span, verdict

HEADER = (
    "strategy",
    "seeds",
    "top-1 (%)",
    "reference ahead by",
    "95 % over seeds",
    "p (Holm)",
    "95 % over images",
    "samples",
    "updates",
    "time a run",
)

Runs = Mapping[str, Mapping[int, Finished]]


def rows(compared: Comparison, runs: Runs, differences: Sequence[Difference]) -> list[tuple[str, ...]]:
    """One row a strategy, under `HEADER`: the first is the reference."""
    found = {each.other: each for each in differences}
    return [_row(strategy.name, runs[strategy.name], found.get(strategy.name)) for strategy in compared.strategies]


def _row(name: str, runs: Mapping[int, Finished], difference: Difference | None) -> tuple[str, ...]:
    if not runs:
        return (name, "0", *("–",) * (len(HEADER) - 2))
    summaries = [run.summary for run in runs.values()]
    mean, deviation = mean_and_deviation([summary["top1"] for summary in summaries])
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
    paired = ("–",) * 4 if difference is None else _paired(difference)
    seconds = sum(sum(summary["seconds"].values()) for summary in summaries) / len(summaries)
    cost = (f"{summaries[0]['samples']:,}", f"{summaries[0]['updates']:,}", duration(seconds))
    return (name, str(len(runs)), f"{100 * mean:.2f}{spread}", *paired, *cost)


def _paired(difference: Difference) -> tuple[str, ...]:
    over_images = span(difference.image_interval)
    return points(difference.mean), span(difference.interval), chance(difference.p_holm), over_images


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
