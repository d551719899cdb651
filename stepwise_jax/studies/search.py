"""A search for the best (M, b, lambda) under a budget of samples (Eq. 8), by Optuna's tree-structured Parzen estimator.

Optuna is an extra (`pip install 'stepwise-jax[sweep]'`). Its journal is kept in the sweep's folder, so that a search
continues where it stopped, with the points that were running.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.studies.sweep import Point

JOURNAL = "search.journal"


@dataclass(frozen=True)
class SearchSpace:
    """The search space and its budget."""

    examples: int
    """M of the whole training set, without the held-out images."""
    samples: int
    """The budget: epochs x M_i of every point stays within it."""
    fractions: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, float]
    """Lower and upper bound; searched on a logarithmic scale."""


def make_space(experiment: ExperimentConfig, examples: int, samples: int | None) -> SearchSpace:
    """The space around an experiment: its fractions, b/2 to 4 b, lambda/30 to 30 lambda.

    Args:
      experiment: its plan is the centre of the space.
      examples: training images that are not held out.
      samples: the budget; by default that of the staged run, the sum of epochs x M_i.

    Raises:
      InputError: for a budget below one epoch of the smallest set, or a plan with milestones or too large a batch.
    """
    plan = experiment.plan
    require(plan.milestones is None, "plan.milestones", plan.milestones, "None for a search, which sets the epochs")
    staged = sum(round(fraction * examples) for fraction in plan.fractions) * plan.epochs_per_stage
    budget = staged if samples is None else samples
    smallest = round(min(plan.fractions) * examples)
    require(budget >= smallest, "--samples", budget, f"at least {smallest}, one epoch of the smallest set")
    fractions = tuple(each for each in plan.fractions if round(each * examples) <= budget)
    b = plan.batch_size
    sizes = tuple(sorted({max(1, b // 2), b, 2 * b, 3 * b, 4 * b} & set(range(1, smallest + 1))))
    require(bool(sizes), "plan.batch_size", b, f"at most {2 * smallest}, so that half of it fits into the smallest set")
    return SearchSpace(examples, budget, fractions, sizes, (plan.learning_rate / 30, 30 * plan.learning_rate))


def make_point(space: SearchSpace, values: Mapping[str, Any]) -> Point:
    """The fields of a suggested point: one set, for as many epochs as the budget allows; the rate drops halfway."""
    examples = round(values["fraction"] * space.examples)
    epochs = max(1, space.samples // examples)
    return {
        "plan.strategy": "single_set",
        "plan.fractions": str(values["fraction"]),
        "plan.batch_multipliers": "1",
        "plan.batch_size": str(values["batch_size"]),
        "plan.learning_rate": f"{values['learning_rate']:.6g}",
        "plan.epochs_per_stage": str(epochs),
        "plan.decay_every": str(max(1, -(-epochs // 2))),
    }


def load_optuna() -> Any:
    """Import Optuna.

    Raises:
      InputError: where it is not installed.
    """
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise InputError("a search needs Optuna: pip install 'stepwise-jax[sweep]', or give --grid") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Search:
    """An Optuna study of a search space; `ask` and `tell` are named as in Optuna."""

    def __init__(self, space: SearchSpace, folder: Path, seed: int):
        self._optuna, self._space, self._seed = load_optuna(), space, seed
        backend = self._optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        try:
            self._study = self._optuna.create_study(
                storage=self._optuna.storages.JournalStorage(backend),
                study_name="sweep",
                direction="maximize",
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / JOURNAL} is damaged: it is no journal of a search") from error

    def running_points(self) -> list[tuple[int, Point]]:
        """Points without a result, each with its number: those of a search that was stopped."""
        running = self._complete_trials([self._optuna.trial.TrialState.RUNNING])
        return [(trial.number, make_point(self._space, trial.params)) for trial in running]

    def scored_points(self) -> list[Point]:
        """All points with a score."""
        done = self._study.get_trials(states=[self._optuna.trial.TrialState.COMPLETE])
        return [make_point(self._space, trial.params) for trial in done]

    def count(self) -> int:
        """The number of points suggested so far."""
        return len(self._complete_trials(None))

    def _complete_trials(self, states: Any) -> list[Any]:
        """Trials with all three values on record: a process may be killed while Optuna suggests them."""
        return [trial for trial in self._study.get_trials(states=states) if len(trial.params) == 3]

    def ask(self, count: int) -> list[tuple[int, Point]]:
        """Suggest `count` new points, each with its number."""
        return [self._ask() for _ in range(count)]

    def _ask(self) -> tuple[int, Point]:
        # Seeded again for each point: otherwise a resumed search would be offered its first random points again.
        seed = (self._seed + len(self._study.get_trials())) % 2**32
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        trial = self._study.ask()
        low, high = self._space.learning_rates
        values = {
            "fraction": trial.suggest_categorical("fraction", self._space.fractions),
            "batch_size": trial.suggest_categorical("batch_size", self._space.batch_sizes),
            "learning_rate": trial.suggest_float("learning_rate", low, high, log=True),
        }
        return trial.number, make_point(self._space, values)

    def tell(self, number: int, top1: float | None) -> None:
        """Record the score of a point; None where its run failed."""
        if top1 is None:
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(number, top1)


def run(
    search: Search, trials: int, at_a_time: int, score: Callable[[Sequence[Point]], Sequence[float | None]]
) -> None:
    """Score the points that the search suggests, until it has `trials` of them.

    Args:
      search: the study.
      trials: points in all, including those of earlier processes.
      at_a_time: how many points to score in one call.
      score: trains points and returns their scores, None for a point that failed.
    """
    while True:
        resumed = search.running_points()
        room = min(at_a_time - len(resumed), trials - search.count())
        points = [*resumed, *search.ask(max(0, room))]
        if not points:
            return
        for (number, _), top1 in zip(points, score([point for _, point in points]), strict=True):
            search.tell(number, top1)
