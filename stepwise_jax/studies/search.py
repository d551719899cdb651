"""A search for the best (M, b, lambda) under a budget of samples (Eq. 8), by Optuna's tree-structured Parzen estimator.

Optuna is an extra (`pip install 'stepwise-jax[sweep]'`). Its journal lies in the sweep's folder: a search goes on where
it stopped, and what was under way is taken up again.
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
class Space:
    """What is searched."""

    examples: int
    """M of the whole training set, without what is held out."""
    samples: int
    """The budget: epochs x M_i of any point stays within it."""
    fractions: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, float]
    """From, to; searched on a logarithmic scale."""


def make_space(experiment: ExperimentConfig, examples: int, samples: int | None) -> Space:
    """The space around an experiment: its fractions, b/2 to 4 b, lambda/30 to 30 lambda.

    Args:
      experiment: its plan gives the middle.
      examples: training images that are not held out.
      samples: the budget; by default the staged run's own, the sum of epochs x M_i.

    Raises:
      InputError: for a budget below one epoch of the smallest set.
    """
    plan = experiment.plan
    require(plan.milestones is None, "plan.milestones", plan.milestones, "None for a search, which sets the epochs")
    own = sum(round(fraction * examples) for fraction in plan.fractions) * plan.epochs_per_stage
    budget = own if samples is None else samples
    smallest = round(min(plan.fractions) * examples)
    require(budget >= smallest, "--samples", budget, f"at least {smallest}, one epoch of the smallest set")
    fractions = tuple(each for each in plan.fractions if round(each * examples) <= budget)
    b = plan.batch_size
    sizes = tuple(sorted({max(1, b // 2), b, 2 * b, 3 * b, 4 * b} & set(range(1, smallest + 1))))
    require(bool(sizes), "plan.batch_size", b, f"at most {2 * smallest}, so that half of it fits into the smallest set")
    return Space(examples, budget, fractions, sizes, (plan.learning_rate / 30, 30 * plan.learning_rate))


def point_of(space: Space, values: Mapping[str, Any]) -> Point:
    """The fields of a suggestion: one set alone, for as many epochs as the budget holds, its rate dropping halfway."""
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
    """Optuna's module.

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
    """Optuna's study of a space, asked for points and told what they scored."""

    def __init__(self, space: Space, folder: Path, seed: int):
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
            raise InputError(f"{folder / JOURNAL} is damaged: it is not what a search writes there") from error

    def asked(self) -> list[tuple[int, Point]]:
        """Points that were asked for and never told of: those of a search that was stopped."""
        running = self._whole_trials([self._optuna.trial.TrialState.RUNNING])
        return [(trial.number, point_of(self._space, trial.params)) for trial in running]

    def told(self) -> list[Point]:
        """All points that have a score."""
        done = self._study.get_trials(states=[self._optuna.trial.TrialState.COMPLETE])
        return [point_of(self._space, trial.params) for trial in done]

    def count(self) -> int:
        """Points asked for so far."""
        return len(self._whole_trials(None))

    def _whole_trials(self, states: Any) -> list[Any]:
        """Those whose three values are on record: a process may be killed while it asks for them."""
        return [trial for trial in self._study.get_trials(states=states) if len(trial.params) == 3]

    def ask(self, wanted: int) -> list[tuple[int, Point]]:
        """So many new points, each with its number."""
        return [self._ask() for _ in range(wanted)]

    def _ask(self) -> tuple[int, Point]:
        # Anew for each point: a search that goes on would else be offered its first random points once more.
        seed = (self._seed + len(self._study.get_trials())) % 2**32
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        trial = self._study.ask()
        low, high = self._space.learning_rates
        values = {
            "fraction": trial.suggest_categorical("fraction", self._space.fractions),
            "batch_size": trial.suggest_categorical("batch_size", self._space.batch_sizes),
            "learning_rate": trial.suggest_float("learning_rate", low, high, log=True),
        }
        return trial.number, point_of(self._space, values)

    def tell(self, number: int, top1: float | None) -> None:
        """What a point scored; None where its run failed."""
        failed = self._optuna.trial.TrialState.FAIL
        if top1 is None:
            self._study.tell(number, state=failed)
        else:
            self._study.tell(number, top1)


def run(
    search: Search, trials: int, at_a_time: int, score: Callable[[Sequence[Point]], Sequence[float | None]]
) -> None:
    """Asks for points, has them scored, and tells the search, until it has `trials` of them.

    Args:
      search: the study.
      trials: points in all, those of earlier processes included.
      at_a_time: points to score at once.
      score: trains points and returns their scores, None for one that failed.
    """
    while True:
        under_way = search.asked()
        room = min(at_a_time - len(under_way), trials - search.count())
        points = [*under_way, *search.ask(max(0, room))]
        if not points:
            return
        for (number, _), top1 in zip(points, score([point for _, point in points]), strict=True):
            search.tell(number, top1)
