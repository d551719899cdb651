"""A comparison in words and rows: the verdict's sentences follow the numbers."""

from collections.abc import Mapping, Sequence

from stepwise_jax.formatting import format_duration
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_folder import Finished
from stepwise_jax.studies.statistics import Difference, Interval, mean_and_deviation

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
    cost = (f"{summaries[0]['samples']:,}", f"{summaries[0]['updates']:,}", format_duration(seconds))
    return (name, str(len(runs)), f"{100 * mean:.2f}{spread}", *paired, *cost)


def _paired(difference: Difference) -> tuple[str, ...]:
    over_images = span(difference.image_interval)
    return points(difference.mean), span(difference.interval), chance(difference.p_holm), over_images


def verdict(reference: str, differences: Sequence[Difference]) -> str:
    """What can be said of the reference beside each of the others, in one paragraph."""
    if not differences:
        return f"There is nothing to compare {reference} with yet: no seed has both of a pair finished."
    seeds = sorted({len(each.by_seed) for each in differences})
    if seeds == [1]:
        return (
            f"One seed shows no difference, whatever its numbers: {_list(reference, differences)}. Take at least three."
        )
    better = [each for each in differences if each.shown and each.mean > 0]
    worse = [each for each in differences if each.shown and each.mean < 0]
    open_ = [each for each in differences if not each.shown]
    parts = []
    if open_:
        parts.append(f"No difference shown between {reference} and {_list('', open_)}")
    if better:
        parts.append(f"{reference} is better than {_list('', better)}")
    if worse:
        parts.append(f"{reference} is worse than {_list('', worse)}")
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"{'. '.join(parts)}. (Points of top-1 with 95 % intervals over {counted} paired seeds; Holm-corrected at 5 %.)"
    )


def _list(reference: str, differences: Sequence[Difference]) -> str:
    return ", ".join(f"{each.other} ({points(each.mean)}{_between(each.interval)})" for each in differences)


def _between(interval: Interval | None) -> str:
    return "" if interval is None else f", {span(interval)}"


def points(difference: float) -> str:
    """A difference of accuracies in points of a per cent, with its sign."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def span(interval: Interval | None) -> str:
    """An interval in points: `−0.31 to +1.20`, a dash where there is none."""
    return "–" if interval is None else f"{points(interval.low)} to {points(interval.high)}"


def chance(p: float | None) -> str:
    """A p value as tables show it."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
