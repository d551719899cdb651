"""What it costs each strategy of a comparison to reach the reference's accuracy."""

from collections.abc import Mapping, Sequence

from stepwise_jax.formatting import format_percent
from stepwise_jax.report.blocks import Block, Paragraph, Table
from stepwise_jax.report.comparisons.arms import ArmStyles, styled_table
from stepwise_jax.studies.results import Results
from stepwise_jax.studies.statistics.student import mean_and_deviation
from stepwise_jax.studies.statistics.target import first_reaching, median_cost
from stepwise_jax.workdir.runs import Run


def target_blocks(results: Results, styles: ArmStyles) -> list[Block]:
    """Return a sentence about the target, the mean top-1 of the reference, and the cost of reaching it."""
    reference = results.comparison.arms[0].name
    if not results.finished[reference]:
        return []
    target, _ = mean_and_deviation([run.summary["top1"] for run in results.finished[reference].values()])
    started = {name: list(of_seed.values()) for name, of_seed in results.runs.items() if of_seed}
    text = (
        f"The cost of a target, {format_percent(target)} top-1, which {styles[reference].label} reaches at its end on "
        "average: from the start to the end of the first epoch whose test score reaches it. These are medians over "
        "runs; a run that never reaches it counts as dearer than any other."
    )
    return [Paragraph(text), styled_table(target_table(target, started), styles)]


def target_table(target: float, runs: Mapping[str, Sequence[Run]]) -> Table:
    """Return the cost of first reaching a test top-1, the median over the runs of each strategy.

    Args:
      target: a fraction.
      runs: the finished runs by strategy, the reference first.
    """
    header = ("strategy", "runs that reach it", "epochs", "samples fed", "of the reference", "seconds")
    reached = {name: [first_reaching(run.records.epochs, target) for run in each] for name, each in runs.items()}
    medians = {name: median_cost(each) for name, each in reached.items()}
    reference = next(iter(medians.values()), None)
    rows = []
    for name, cost in medians.items():
        count = f"{sum(each is not None for each in reached[name])} of {len(reached[name])}"
        share = f"{cost.samples / reference.samples:.0%}" if cost and reference else "–"
        costs = (f"{cost.epoch}", f"{cost.samples:,}", share, f"{cost.seconds:,.0f}") if cost else ("–",) * 4
        rows.append((name, count, *costs))
    return Table(header, tuple(rows))
