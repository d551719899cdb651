"""The table and the verdict of a comparison; the wording of the verdict follows the numbers."""

from collections.abc import Mapping, Sequence

from stepwise_jax.formatting import format_count, format_duration
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_folder import FinishedRun
from stepwise_jax.studies.statistics.components import Component
from stepwise_jax.studies.statistics.paired import Difference, Verdict
from stepwise_jax.studies.statistics.power import MOST_SEEDS
from stepwise_jax.studies.statistics.student import Interval, mean_and_deviation

COMPARISON_HEADER = (
    "strategy",
    "top-1 (%)",
    "reference is",
    "ahead by",
    "95 % over seeds",
    "seeds",
    "p (Holm)",
    "p equivalent (Holm)",
    "p sign-flip (Holm)",
    "95 % over images",
    "95 % over both",
    "samples planned",
    "updates",
    "time a run",
)
"""The columns, the most important ones first: a narrow terminal shows as many as it has room for."""

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
        return (name, *("–",) * 4, "0", *("–",) * (len(COMPARISON_HEADER) - 6))
    summaries = [run.summary for run in runs.values()]
    mean, deviation = mean_and_deviation([summary["top1"] for summary in summaries])
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
    answer, evidence = (("–",) * 3, ("–",) * 5) if difference is None else (_answer(difference), _evidence(difference))
    seconds = sum(sum(summary["seconds"].values()) for summary in summaries) / len(summaries)
    cost = (f"{summaries[0]['samples']:,}", f"{summaries[0]['updates']:,}", format_duration(seconds))
    return (name, f"{100 * mean:.2f}{spread}", *answer, str(len(runs)), *evidence, *cost)


def _answer(difference: Difference) -> tuple[str, ...]:
    return (difference.verdict, format_points(difference.mean), format_interval(difference.interval))


def _evidence(difference: Difference) -> tuple[str, ...]:
    p_values = (difference.p_holm, difference.p_equivalent, difference.p_sign_flip)
    intervals = (difference.image_interval, difference.crossed_interval)
    return (*map(format_p_value, p_values), *map(format_interval, intervals))


def verdict(reference: str, differences: Sequence[Difference]) -> str:
    """The conclusion about the reference and each of the others, in one paragraph."""
    if not differences:
        return f"There is nothing to compare {reference} with yet: no seed has finished in both arms of a pair."
    seeds = sorted({len(each.by_seed) for each in differences})
    if seeds == [1]:
        return f"One seed shows no difference, whatever its numbers: {_list(differences)}. Take at least three."
    margin = f"{100 * differences[0].margin:.2f}"
    answers: tuple[tuple[Verdict, str], ...] = (
        ("better", f"{reference} is better than"),
        ("worse", f"{reference} is worse than"),
        ("equivalent", f"{reference} is equivalent within ± {margin} to"),
        ("not decided", f"Not decided between {reference} and"),
    )
    found = [(text, [each for each in differences if each.verdict == answer]) for answer, text in answers]
    parts = [f"{text} {_list(named)}" for text, named in found if named]
    return f"{'. '.join(parts)}. ({_method(seeds, differences[0].looks)})"


def _method(seeds: Sequence[int], looks: int) -> str:
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    over = "" if looks == 1 else f", over {looks} looks"
    return f"Points of top-1 with 95 % intervals over {count} paired seeds; Holm-corrected at 5 %{over}."


def _list(differences: Sequence[Difference]) -> str:
    return ", ".join(f"{each.other} ({_numbers(each)})" for each in differences)


def _numbers(difference: Difference) -> str:
    interval = "" if difference.interval is None else f", {format_interval(difference.interval)}"
    return f"{format_points(difference.mean)}{interval}{_more_seeds(difference)}"


def _more_seeds(difference: Difference) -> str:
    """How many seeds more would decide, if the deviation stays as estimated; empty where two seeds say too little."""
    if difference.verdict != "not decided" or difference.interval is None or len(difference.by_seed) < 3:
        return ""
    if difference.seeds_to_decide is None:
        return f"; more than {MOST_SEEDS:,} seeds would"
    more = difference.seeds_to_decide - len(difference.by_seed)
    return f"; {format_count(more, 'seed')} more would"


def format_points(difference: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def format_interval(interval: Interval | None) -> str:
    """An interval in percentage points: `−0.31 to +1.20`; a dash where there is none."""
    return "–" if interval is None else f"{format_points(interval.low)} to {format_points(interval.high)}"


def format_p_value(p: float | None) -> str:
    """A p-value as shown in tables."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


VARIANCE_HEADER = ("strategy", "what differs", "runs", "deviation (points)", "95 %", "share of the variance")


def variance_row(label: str, component: Component) -> tuple[str, ...]:
    """A row under `VARIANCE_HEADER`: the standard deviation of an arm's top-1 where one stream differs."""
    interval = component.interval
    ends = "–" if interval is None else f"{100 * interval.low**0.5:.2f} to {100 * interval.high**0.5:.2f}"
    deviation = "–" if component.deviation is None else f"{100 * component.deviation:.2f}"
    share = "–" if component.share is None else f"{component.share:.0%}"
    return (label, component.stream, str(component.runs), deviation, ends, share)
