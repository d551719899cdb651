"""Bias and spread of the gradient noise estimate, by the number of microbatches, where the truth is known.

    python benchmarks/noise_estimator.py [--repetitions 2000]

Gradients of examples are normal, with variances that fall as 1/i over 200 directions, and microbatches have 32
examples. It prints one row for each B_simple and number of microbatches: bias and standard deviation of tr Sigma and
|G|^2, as shares of the true values, how often their 95 % intervals hold the truth, and how often |G|^2 <= 0 left
B_simple without a value.
"""

import argparse
from typing import Any, NamedTuple

import numpy as np

from stepwise_jax.functional.gradient_noise import GROUPS, Estimate, GradientGroup, GradientNoise, estimate_noise

SIZE, DIRECTIONS = 32, 200

VARIANCES = 1 / np.arange(1, DIRECTIONS + 1)


class Accuracy(NamedTuple):
    """How well one quantity is estimated; shares of its true value, but for `covered`."""

    bias: float
    spread: float
    covered: float


def simulate(b_simple: float, microbatches: int, repetitions: int, seed: int = 0) -> dict[str, Any]:
    """Return the `Accuracy` of `trace` and `squared_norm`, and the shares `covered` and `unidentified` of B_simple."""
    random, trace = np.random.default_rng(seed), float(VARIANCES.sum())
    mean = np.full(DIRECTIONS, np.sqrt(trace / b_simple / DIRECTIONS))
    found = [_measure(random, mean, microbatches) for _ in range(repetitions)]
    return {
        "trace": _accuracy([each.trace for each in found], trace),
        "squared_norm": _accuracy([each.squared_norm for each in found], trace / b_simple),
        "covered": float(np.mean([_holds(each.b_simple, b_simple) for each in found])),
        "unidentified": float(np.mean([np.isnan(each.b_simple.value) for each in found])),
    }


def _measure(random: np.random.Generator, mean: np.ndarray, microbatches: int) -> GradientNoise:
    gradients = mean + random.normal(size=(microbatches, DIRECTIONS)) * np.sqrt(VARIANCES / SIZE)
    parts = np.split(gradients, GROUPS)
    return estimate_noise([GradientGroup(part.sum(axis=0), float((part**2).sum()), len(part)) for part in parts], SIZE)


def _holds(estimate: Estimate, truth: float) -> bool:
    return not (estimate.low > truth or estimate.high < truth)


def _accuracy(found: list[Estimate], truth: float) -> Accuracy:
    values = np.array([each.value for each in found]) / truth
    covered = float(np.mean([_holds(each, truth) for each in found]))
    return Accuracy(float(values.mean() - 1), float(values.std(ddof=1)), covered)


def _row(b_simple: float, microbatches: int, repetitions: int) -> str:
    found = simulate(b_simple, microbatches, repetitions)
    shares = (f"{found[name].bias:+.1%} ± {found[name].spread:.1%}" for name in ("trace", "squared_norm"))
    covered = (f"{share:.1%}" for share in (found["trace"].covered, found["squared_norm"].covered, found["covered"]))
    cells = (f"{b_simple / SIZE:g}", f"{microbatches}", *shares, *covered, f"{found['unidentified']:.1%}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args().repetitions
    covered = ("tr Σ covered", r"\|G\|² covered", "B_simple covered")
    header = ("B_simple / b_s", "microbatches", "tr Σ", r"\|G\|²", *covered, "no B_simple")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for ratio in (1, 10, 100):
        for microbatches in (16, 64, 256):
            print(_row(ratio * SIZE, microbatches, repetitions), flush=True)


if __name__ == "__main__":
    main()
