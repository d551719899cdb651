"""Count false alarms of a comparison's verdicts in synthetic comparisons, whose true differences are known.

    python benchmarks/verdict_rates.py [--comparisons 10000] [--seed 0]

Each synthetic comparison draws a score for every arm and seed, and asks the functions behind `compare` for verdicts. A
verdict is false where it calls an equal arm better or worse, an arm equivalent that differs by the margin, or a worse
arm better. One false verdict at any look makes the whole comparison a false alarm. Nothing is trained:
`stepwise_jax.studies.statistics` is the only part of the package that is used.
"""

import argparse
import math
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from stepwise_jax.studies.statistics.multiplicity import false_alarm_bound
from stepwise_jax.studies.statistics.paired import Difference, paired_differences

MARGIN = 1.0
"""Points; the differences and deviations below are points, too."""


def normal_errors(random: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """Errors of a run's score that are normal."""
    return deviation * random.standard_normal(shape)


def binomial_errors(random: np.random.Generator, shape: tuple[int, ...], _: float) -> np.ndarray:
    """The errors of an accuracy of 80 % on 1,000 images: whole images, with a deviation of 1.3 points."""
    return 100 * (random.binomial(1000, 0.8, shape) / 1000 - 0.8)


def failing_errors(random: np.random.Generator, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """Normal errors, but one run in ten loses ten points."""
    return normal_errors(random, shape, deviation) - 10 * (random.random(shape) < 0.1)


@dataclass(frozen=True)
class Scenario:
    """A kind of comparison."""

    name: str
    differences: tuple[float, ...]
    """The reference minus each other arm, in truth."""
    deviation: float = 0.7
    """Of the score of one run."""
    seeds: tuple[int, ...] = (5,)
    """At each look; a last entry of 0 means as many as the verdict asks for, at most `MOST_SEEDS`."""
    planned: bool = True
    """Whether the looks were planned."""
    errors: Callable[[np.random.Generator, tuple[int, ...], float], np.ndarray] = normal_errors


MOST_SEEDS = 16

_MIXED = (0.0, 0.0, 0.5, 1.0, 1.0, -1.0, -2.0)

SCENARIOS = (
    Scenario("1 arm, equal", (0.0,), 2.0),
    Scenario("1 arm, 1 point apart", (1.0,), 0.3),
    Scenario("7 arms, all equal", (0.0,) * 7, 2.0),
    Scenario("7 arms, all 1 point apart", (1.0,) * 7, 0.3),
    Scenario("7 arms, some of each", _MIXED, 0.4),
    Scenario("7 arms, some of each", _MIXED, 0.4, (10,)),
    Scenario("7 arms, equal, on 1,000 images", (0.0,) * 7, errors=binomial_errors),
    Scenario("7 arms, equal, one run in ten fails", (0.0,) * 7, errors=failing_errors),
    Scenario("1 arm, equal, 3 looks", (0.0,), 2.0, (5, 8, 12)),
    Scenario("1 arm, 1 point apart, 3 looks", (1.0,), 0.3, (5, 8, 12)),
    Scenario("7 arms, some of each, 3 looks", _MIXED, 0.4, (5, 8, 12)),
    Scenario("1 arm, equal, then the seeds asked for", (0.0,), 0.5, (5, 0)),
    Scenario("1 arm, 1 point apart, then the seeds asked for", (1.0,), 0.5, (5, 0)),
    Scenario("1 arm, equal, 3 looks, 2 of them unplanned", (0.0,), 2.0, (5, 8, 12), planned=False),
)
"""Equal arms vary so much that no chance of equivalence hides a false difference, and others so little that the margin
is met."""


@dataclass(frozen=True)
class Rates:
    """Shares of all comparisons, and of all arms."""

    false_difference: float
    """Comparisons in which any look calls any arm better or worse that is not."""
    false_equivalence: float
    """Comparisons in which any look calls any arm equivalent that is not."""
    claimed: float
    """The highest rate that each of the two should have."""
    decided: float
    """Arms that are decided at the last look."""


def measure(scenario: Scenario, comparisons: int, random: np.random.Generator) -> Rates:
    """Count false verdicts in synthetic comparisons."""
    counts: Counter[str] = Counter()
    for _ in range(comparisons):
        looks = list(_looks(scenario, random))
        false = {kind for found in looks for kind in _false_kinds(scenario, found)}
        counts.update(false)
        counts["decided"] += sum(each.verdict != "not decided" for each in looks[-1])
    number = len(scenario.seeds)
    claimed = false_alarm_bound(number if scenario.planned else 1, number)
    shares = (counts[kind] / comparisons for kind in ("difference", "equivalence"))
    return Rates(*shares, claimed, counts["decided"] / comparisons / len(scenario.differences))


def _looks(scenario: Scenario, random: np.random.Generator) -> Iterator[tuple[Difference, ...]]:
    """The verdicts at each look of one comparison."""
    most = max(MOST_SEEDS, *scenario.seeds)
    arms = len(scenario.differences) + 1
    # What a seed does to all arms alike cancels in the paired differences.
    scores = random.standard_normal((1, most)) + scenario.errors(random, (arms, most), scenario.deviation)
    scores[1:] -= np.array(scenario.differences)[:, None]
    found: tuple[Difference, ...] = ()
    for number, seeds in enumerate(scenario.seeds, start=1):
        count = seeds or _seeds_asked_for(found)
        by_seed = [dict(enumerate(each)) for each in scores[:, :count].tolist()]
        others = {str(place): values for place, values in enumerate(by_seed[1:])}
        looks = len(scenario.seeds) if scenario.planned else number
        found = paired_differences(by_seed[0], others, {}, {}, MARGIN, looks)
        yield found


def _seeds_asked_for(found: Sequence[Difference]) -> int:
    open_ones = [each for each in found if each.verdict == "not decided"]
    asked = [MOST_SEEDS if each.seeds_to_decide is None else each.seeds_to_decide for each in open_ones]
    return min(MOST_SEEDS, max(asked, default=len(found[0].by_seed)))


def _false_kinds(scenario: Scenario, found: Sequence[Difference]) -> set[str]:
    kinds = set()
    for truth, each in zip(scenario.differences, found, strict=True):
        if each.verdict == "equivalent":
            kinds |= {"equivalence"} if abs(truth) >= MARGIN else set()
        elif each.verdict != "not decided":
            right = "better" if truth > 0 else "worse" if truth < 0 else None
            kinds |= {"difference"} if each.verdict != right else set()
    return kinds


HEADER = ("scenario", "seeds", "false better or worse", "false equivalent", "claimed", "arms decided")


def table_row(scenario: Scenario, rates: Rates) -> tuple[str, ...]:
    """A row under `HEADER`."""
    seeds = ", ".join(str(count) if count else "…" for count in scenario.seeds)
    false = (rates.false_difference, rates.false_equivalence)
    shares = (f"{100 * share:.1f} %" for share in (*false, rates.claimed))
    return (scenario.name, seeds, *shares, f"{100 * rates.decided:.0f} %")


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=10_000, metavar="N", help="of each scenario")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for scenario in SCENARIOS:
        rates = measure(scenario, options.comparisons, np.random.default_rng(options.seed))
        print(f"| {' | '.join(table_row(scenario, rates))} |", flush=True)
    error = 1.96 * math.sqrt(0.05 * 0.95 / options.comparisons)
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}"
    print(f"\n{options.comparisons:,} comparisons each: a rate of 5 % is known to ± {100 * error:.1f} %. {versions}.")


if __name__ == "__main__":
    main()
