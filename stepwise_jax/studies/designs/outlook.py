"""What a design can show and what it costs: from a pilot, or an earlier comparison, of the same arms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepwise_jax.errors import InputError
from stepwise_jax.formatting import format_count
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_file import read_comparison
from stepwise_jax.studies.comparison_folder import arm_differences, read_finished_runs
from stepwise_jax.studies.statistics.multiplicity import strictest_level
from stepwise_jax.studies.statistics.power import MOST_SEEDS, seeds_for_margin, smallest_difference
from stepwise_jax.studies.statistics.student import mean_and_deviation
from stepwise_jax.workdir.folder import conflicting_fields


@dataclass(frozen=True)
class Pilot:
    """What an earlier comparison says about a planned one."""

    deviations: Mapping[str, tuple[float, int]]
    """Standard deviation of the reference's top-1 minus an arm's, as a fraction, and from how many seeds, by arm."""
    seconds_per_sample: Mapping[str, float]
    """Measured seconds of whole runs, by arm."""
    other_fields: tuple[str, ...]
    """Fields in which its experiment differs from the planned one."""
    seeds: tuple[int, ...] = ()
    """Those with finished runs."""


def read_pilot(root: Path, planned: Comparison) -> Pilot:
    """Read an earlier comparison.

    Args:
      root: its folder.
      planned: the comparison that is designed.

    Raises:
      InputError: if it has no two seeds of the planned reference and of another planned arm.
    """
    earlier = read_comparison(root)
    reference, names = planned.arms[0].name, [arm.name for arm in planned.arms]
    arms = sorted((arm for arm in earlier.arms if arm.name in names), key=lambda arm: names.index(arm.name))
    earlier = Comparison(earlier.config, earlier.experiment, tuple(arms), earlier.seeds)
    runs = read_finished_runs(earlier, root)
    compared = arm_differences(earlier, runs) if arms and arms[0].name == reference else ()
    deviations = {}
    for each in compared:
        _, deviation = mean_and_deviation(list(each.by_seed.values()))
        if deviation is not None:
            deviations[each.other] = (deviation, len(each.by_seed))
    if not deviations:
        raise InputError(
            f"--pilot {root} has no two finished seeds of {reference} and of another strategy of the design"
        )
    summaries = {name: [run.summary for run in of_seed.values()] for name, of_seed in runs.items() if of_seed}
    seconds = {
        name: sum(sum(each["seconds"].values()) for each in of_arm) / sum(each["samples"] for each in of_arm)
        for name, of_arm in summaries.items()
    }
    differing = conflicting_fields(planned.experiment, earlier.experiment)
    seeds = tuple(sorted({seed for of_arm in runs.values() for seed in of_arm}))
    return Pilot(deviations, seconds, tuple(each for each in differing if not each.startswith("seed:")), seeds)


@dataclass(frozen=True)
class Cost:
    """What the runs of an arm take, for all seeds."""

    samples: int
    """Of the compared runs."""
    tuning: int
    """Of the tuning's runs."""


def plan_costs(
    comparison: Comparison, stages: Mapping[str, Sequence[Stage]], tuning: Mapping[str, int]
) -> dict[str, Cost]:
    """The cost of each arm.

    Args:
      comparison: the planned comparison.
      stages: of each arm.
      tuning: samples of each arm's tuning; none by default.
    """
    return {
        name: Cost(len(comparison.seeds) * sum(each.updates * each.batch_size for each in planned), tuning.get(name, 0))
        for name, planned in stages.items()
    }


def corrected_level(comparison: Comparison) -> float:
    """The level of the strictest of the tests: 5 % over all arms and looks."""
    return strictest_level(len(comparison.arms) - 1, max(1, len(comparison.protocol.looks)))


def outlook_header(comparison: Comparison) -> tuple[str, ...]:
    """The header of `outlook_rows`."""
    margin = comparison.protocol.margin
    shown, wanted = f"shown by {format_count(len(comparison.seeds), 'seed')}", f"seeds for ± {margin:g}"
    return ("strategy", "deviation", shown, wanted, "samples fed", "hours")


def outlook_rows(comparison: Comparison, costs: Mapping[str, Cost], pilot: Pilot | None) -> list[tuple[str, ...]]:
    """One row for each arm, and one for all; a dash for what is not known."""
    level = corrected_level(comparison)
    hours = estimate_hours(costs, pilot)
    table = [
        (
            arm.name,
            *_power_columns(comparison, arm.name, pilot, level),
            *_cost_columns(costs[arm.name], hours[arm.name]),
        )
        for arm in comparison.arms
    ]
    whole = Cost(*(sum(getattr(cost, name) for cost in costs.values()) for name in ("samples", "tuning")))
    total = None if None in hours.values() else sum(each or 0.0 for each in hours.values())
    blank = ("",) * (len(outlook_header(comparison)) - 3)
    return [*table, ("all", *blank, *_cost_columns(whole, total))]


def _power_columns(comparison: Comparison, name: str, pilot: Pilot | None, level: float) -> tuple[str, ...]:
    margin, seeds = comparison.protocol.margin, len(comparison.seeds)
    if name == comparison.arms[0].name:
        return ("",) * 3
    if pilot is None or name not in pilot.deviations:
        return ("–",) * 3
    deviation, _ = pilot.deviations[name]
    shown = f"{100 * smallest_difference(deviation, seeds, alpha=level):.2f}" if seeds > 1 else "–"
    wanted = seeds_for_margin(deviation, margin / 100, alpha=level)
    return (f"{100 * deviation:.2f}", shown, f"> {MOST_SEEDS}" if wanted is None else str(wanted))


def _cost_columns(cost: Cost, hours: float | None) -> tuple[str, str]:
    return (f"{cost.samples + cost.tuning:,}", "–" if hours is None else f"{hours:.1f}")


def estimate_hours(costs: Mapping[str, Cost], pilot: Pilot | None) -> dict[str, float | None]:
    """Hours of each arm's runs, one at a time; by the mean of the others for an arm that the pilot lacks."""
    if pilot is None or not pilot.seconds_per_sample:
        return dict.fromkeys(costs)
    measured = pilot.seconds_per_sample
    usual = sum(measured.values()) / len(measured)
    return {name: (cost.samples + cost.tuning) * measured.get(name, usual) / 3600 for name, cost in costs.items()}


def describe_outlook(comparison: Comparison, pilot: Pilot | None) -> str:
    """What the table of `outlook_rows` means, and what is not known, in one paragraph."""
    seeds = len(comparison.seeds)
    if pilot is None:
        return (
            "Without a pilot the standard deviation of the paired differences is not known, and with it the smallest "
            f"difference that {seeds} seeds show, the seeds that the margin takes and the hours: --pilot DIR names an "
            "earlier comparison."
        )
    level = corrected_level(comparison)
    counts = sorted({count for _, count in pilot.deviations.values()})
    fewest = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    other = f" Its experiment differs ({'; '.join(pilot.other_fields)})." if pilot.other_fields else ""
    other = other or _describe_known(sorted({*comparison.seeds} & {*pilot.seeds}), max(pilot.seeds) + 1)
    return (
        f"Points of top-1, with 80 % power at a level of {level:.2g}: 5 % over all strategies and looks. The deviation "
        f"of the paired differences is the pilot's, over {fewest} seeds; the seeds for a margin hold where two "
        f"strategies are equal. Hours are the pilot's seconds a sample, one run at a time.{other}"
    )


def _describe_known(seeds: Sequence[int], free: int) -> str:
    """A warning about seeds whose results the pilot has shown."""
    known = ", ".join(map(str, seeds))
    return f" The pilot has already shown the results of seeds {known}: --seed {free} takes others." if seeds else ""
