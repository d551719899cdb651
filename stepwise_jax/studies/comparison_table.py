"""The table and the verdict of a comparison; the wording of the verdict follows the numbers."""

from collections.abc import Mapping, Sequence

from stepwise_jax.formatting import format_duration
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_folder import FinishedRun
from stepwise_jax.studies.statistics.paired import Difference, Interval, mean_and_deviation

COMPARISON_HEADER = (
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

FinishedRuns = Mapping[str, Mapping[int, FinishedRun]]
"""Finished runs by arm and seed."""


def comparison_rows(
    comparison: Comparison, runs: FinishedRuns, differences: Sequence[Difference]
) -> list[tuple[str, ...]]:
    """One row for each arm, under `COMPARISON_HEADER`; the first is the reference."""
    by_name = {difference.other: difference for difference in differences}
    return [_row(arm.name, runs[arm.name], by_name.get(arm.name)) for arm in comparison.arms]


def _row(name: str, runs: Mapping[int, FinishedRun], difference: Difference | None) -> tuple[str, ...]:
    if not runs:
        return (name, "0", *("–",) * (len(COMPARISON_HEADER) - 2))
    summaries = [run.summary for run in runs.values()]
    mean, deviation = mean_and_deviation([summary["top1"] for summary in summaries])
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
    difference_columns = ("–",) * 4 if difference is None else _difference_columns(difference)
    seconds = sum(sum(summary["seconds"].values()) for summary in summaries) / len(summaries)
    cost = (f"{summaries[0]['samples']:,}", f"{summaries[0]['updates']:,}", format_duration(seconds))
    return (name, str(len(runs)), f"{100 * mean:.2f}{spread}", *difference_columns, *cost)


def _difference_columns(difference: Difference) -> tuple[str, ...]:
    return (
        format_points(difference.mean),
        format_interval(difference.interval),
        format_p_value(difference.p_holm),
        format_interval(difference.image_interval),
    )


def verdict(reference: str, differences: Sequence[Difference]) -> str:
    """The conclusion about the reference and each of the others, in one paragraph."""
    if not differences:
        return f"There is nothing to compare {reference} with yet: no seed has finished in both arms of a pair."
    seeds = sorted({len(each.by_seed) for each in differences})
    if seeds == [1]:
        return f"One seed shows no difference, whatever its numbers: {_list(differences)}. Take at least three."
    better = [each for each in differences if each.significant and each.mean > 0]
    worse = [each for each in differences if each.significant and each.mean < 0]
    undecided = [each for each in differences if not each.significant]
    parts = []
    if undecided:
        parts.append(f"No difference shown between {reference} and {_list(undecided)}")
    if better:
        parts.append(f"{reference} is better than {_list(better)}")
    if worse:
        parts.append(f"{reference} is worse than {_list(worse)}")
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"{'. '.join(parts)}. (Points of top-1 with 95 % intervals over {count} paired seeds; Holm-corrected at 5 %.)"
    )


def _list(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{each.other} ({format_points(each.mean)}{_optional(each.interval)})" for each in differences)


def _optional(interval: Interval | None) -> str:
    return "" if interval is None else f", {format_interval(interval)}"


def format_points(difference: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def format_interval(interval: Interval | None) -> str:
    """An interval in percentage points: `−0.31 to +1.20`; a dash where there is none."""
    return "–" if interval is None else f"{format_points(interval.low)} to {format_points(interval.high)}"


def format_p_value(p: float | None) -> str:
    """A p-value as shown in tables."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
