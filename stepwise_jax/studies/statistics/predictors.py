"""Which predictor orders the losses of a comparison: lambda M / b, lambda / b, or the measured lambda tr(Sigma) / b.

A predictor of a run is its mean over the updates, weighted by their learning rates: over the distance that the weights
travel. The arms are ordered by a predictor and by their final losses, and Kendall's tau says how far the two orders
agree: 1 for the same order, -1 for the reverse, 0 for none.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy

from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.statistics.student import Interval, t_interval
from stepwise_jax.workdir.records import Row
from stepwise_jax.workdir.runs import Run, read_runs

PREDICTORS = {"noise_scale": "λM/b (Eq. 10)", "rate_over_batch": "λ/b", "step_noise": "λ tr Σ/b"}
"""The predictors, and their formulas."""

LOSSES = {"test_loss": "test loss", "train_loss": "training loss"}

ArmRuns = Mapping[str, Mapping[int, Run]]
"""Finished runs by arm and seed."""


@dataclass(frozen=True)
class Prediction:
    """What the plan and the measurements of a run say about its noise, and the losses that it ended with."""

    rate_sum: float
    """Sum of the learning rates over the updates."""
    predictors: Mapping[str, float | None]
    """By the names of `PREDICTORS`; None where a stage was not measured."""
    losses: Mapping[str, float | None]


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau (b, for ties) between a predictor and a loss over the arms, by seed; empty if it is not defined."""

    predictor: str
    loss: str
    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Over the seeds; 0 without one."""
        return float(np.mean(list(self.by_seed.values()))) if self.by_seed else 0.0


def read_arm_runs(compared: Comparison, root: Path, finished: Mapping[str, Mapping[int, object]]) -> ArmRuns:
    """Read the runs of a comparison that are finished."""
    folders = {(arm, seed): compared.run_folder(root, arm, seed) for arm, of in finished.items() for seed in of}
    runs = dict(zip(folders, read_runs(folders.values()), strict=True))
    return {arm: {seed: runs[arm, seed] for seed in of} for arm, of in finished.items()}


def has_measurements(runs: ArmRuns) -> bool:
    """Whether at least three arms have finished runs, and any of these measured its noise."""
    finished = [of_seed for of_seed in runs.values() if of_seed]
    return len(finished) > 2 and any(run.records.noise for of_seed in finished for run in of_seed.values())


def predict(run: Run) -> Prediction:
    """Return the predictors of a finished run."""
    epochs = run.records.epochs
    updates = np.diff([0, *(row["updates"] for row in epochs)])
    weights = np.array([row["learning_rate"] for row in epochs]) * updates
    ratios = [row["learning_rate"] / row["batch_size"] for row in epochs]
    traces = [_trace(run.records.noise, row["stage"]) for row in epochs]
    known = [trace for trace in traces if trace is not None]
    step_noise = None
    if len(known) == len(traces):
        step_noise = float(np.average(np.multiply(ratios, known), weights=weights))
    predictors = {
        "noise_scale": float(np.average([row["noise_scale"] for row in epochs], weights=weights)),
        "rate_over_batch": float(np.average(ratios, weights=weights)),
        "step_noise": step_noise,
    }
    return Prediction(float(weights.sum()), predictors, {name: epochs[-1][name] for name in LOSSES})


def _trace(rows: Sequence[Row], stage: int) -> float | None:
    """The mean of tr Sigma over the sides of a stage at which it was measured in training mode."""
    found = [row["trace"] for row in rows if (row["stage"], row["statistics"]) == (stage, "batch")]
    return float(np.mean(found)) if found and None not in found else None


def agreements(runs: ArmRuns) -> tuple[Agreement, ...]:
    """Return Kendall's tau of each predictor with each loss, for the seeds that all arms have finished."""
    seeds = sorted(set.intersection(*(set(of_seed) for of_seed in runs.values())))
    predictions = {seed: [predict(of_seed[seed]) for of_seed in runs.values()] for seed in seeds}
    return tuple(
        Agreement(predictor, loss, _taus(predictions, predictor, loss))
        for loss, predictor in itertools.product(LOSSES, PREDICTORS)
    )


def _taus(predictions: Mapping[int, Sequence[Prediction]], predictor: str, loss: str) -> dict[int, float]:
    taus = {}
    for seed, arms in predictions.items():
        pairs = [(each.predictors[predictor], each.losses[loss]) for each in arms]
        if all(None not in pair for pair in pairs):
            # Rounded, so that arms whose predictor is equal but for rounding are ties.
            values, losses = zip(*((float(f"{x:.9g}"), y) for x, y in pairs), strict=True)
            taus[seed] = float(scipy.stats.kendalltau(values, losses).statistic)  # pyright: ignore
    return {seed: tau for seed, tau in taus.items() if np.isfinite(tau)}


def conclusions(runs: ArmRuns) -> tuple[str, ...]:
    """Return a sentence for each loss of a comparison whose runs measured their noise."""
    return tuple(conclude(agreements(runs), loss) for loss in LOSSES) if has_measurements(runs) else ()


def conclude(found: Sequence[Agreement], loss: str) -> str:
    """Return one sentence: which predictor orders a loss of the arms best, if the seeds decide it."""
    of_loss = sorted((each for each in found if each.loss == loss and each.by_seed), key=lambda each: -abs(each.mean))
    if not of_loss:
        return f"No seed has finished in all arms: nothing orders the {LOSSES[loss]} yet."
    best, *others = of_loss
    leads = {PREDICTORS[other.predictor]: _lead(best, other) for other in others}
    named = f"{PREDICTORS[best.predictor]} (mean τ {_signed(best.mean)})"
    count = f"{len(best.by_seed)} {'seed' if len(best.by_seed) == 1 else 'seeds'}"
    listed = ", ".join(f"{name} by {_describe(*lead)}" for name, lead in leads.items())
    ahead = f"; its |τ| is ahead of that of {listed}, over {count}." if listed else f", over {count}."
    own = _interval(list(best.by_seed.values()))
    decided = own is not None and own.low * own.high > 0
    if decided and all(interval is not None and interval.low > 0 for _, interval in leads.values()):
        return f"{named} orders the {LOSSES[loss]} best{ahead}"
    return f"It is not decided which predictor orders the {LOSSES[loss]} best: the nearest is {named}{ahead}"


def _lead(best: Agreement, other: Agreement) -> tuple[float, Interval | None]:
    """The mean over seeds, with its interval, of how much further one tau is from 0 than another."""
    signs = np.sign(best.mean), np.sign(other.mean)
    shared = best.by_seed.keys() & other.by_seed.keys()
    leads = [signs[0] * best.by_seed[seed] - signs[1] * other.by_seed[seed] for seed in sorted(shared)]
    return (float(np.mean(leads)) if leads else 0.0), _interval(leads)


def _interval(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean; None for fewer than three values, which decide nothing."""
    return t_interval(values) if len(values) > 2 else None


def _describe(mean: float, interval: Interval | None) -> str:
    ends = "" if interval is None else f" ({_signed(interval.low)} to {_signed(interval.high)})"
    return f"{_signed(mean)}{ends}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
