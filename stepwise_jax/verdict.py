"""Sentences that say what a comparison shows, and no more than that: the wording follows the numbers."""

from collections.abc import Sequence

from stepwise_jax.statistics import Difference, Interval


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
