"""Eq. 8: which data size, batch size and learning rate give the best accuracy, scored on held-out training images.

A sweep is a list of points, each some fields of the experiment by dotted name, with a run for each point and seed in
POINT/seedN. The test set is scored once, at the end, by a run of the best point on all training images.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, require
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import flatten, from_json_by_name, to_json
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.jobs import Job
from stepwise_jax.workdir.files import SUMMARY
from stepwise_jax.workdir.folder import binding_differences, check_finished
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.runs import read_summary

FILE, RESULTS, BEST = "sweep.json", "results.json", "best"

VALIDATION_FRACTION = 0.1
"""Share of the training set that is held out where the configuration holds none out."""

Point = Mapping[str, str]
"""Values by dotted name, in the words of the command line."""


_KEPT = {
    "seed": "--seeds says how many runs a point has",
    "data.validation_fraction": "every point is scored on the same images",
    "evaluation.every_epochs": "every point is scored at the end of its stages",
}
"""Fields that a grid does not vary, and why."""


def point_name(point: Point) -> str:
    """The folder of a point: `plan.batch_size=24,plan.learning_rate=0.1`."""
    return ",".join(f"{name}={value.replace(' ', '-')}" for name, value in point.items())


def parse_grid(experiment: ExperimentConfig, grids: Sequence[str]) -> tuple[Point, ...]:
    """The points of `FIELD=V1,V2,...` words: every combination of their values; `figure1` stands for three grids.

    Raises:
      InputError: for a word of another form, or a name that is no field.
    """
    if list(grids) == ["figure1"]:
        return figure1(experiment)
    axes = []
    for grid in grids:
        name, _, values = grid.partition("=")
        require(name in flatten(experiment), "--grid", grid, "FIELD=V1,V2,..., FIELD a dotted name of the experiment")
        require(name not in _KEPT, "--grid", grid, f"of another field: {_KEPT.get(name)}")
        require(name not in [axis[0][0] for axis in axes], "--grid", grid, "a field that no other --grid has")
        words = [value.strip() for value in values.split(",") if value.strip()]
        require(len(words) == len(set(words)) and bool(words), "--grid", grid, "FIELD=V1,V2,... with different values")
        axes.append([(name, word) for word in words])
    return tuple(dict(point) for point in itertools.product(*axes))


def figure1(experiment: ExperimentConfig) -> tuple[Point, ...]:
    """The grids of Figure 1, each along one axis, points that two axes share once.

    M = A to O; b/2, b, 2 b, 3 b and 4 b on set A; lambda = 0.1 to 0.0001 on set O, as the paper names no set there.
    """
    alone = {"plan.strategy": "single_set", "plan.batch_multipliers": "1"}
    b = experiment.plan.batch_size
    sizes = [size for size in (b // 2, 2 * b, 3 * b, 4 * b) if size]
    rates = [rate for rate in ("0.1", "0.01", "0.001", "0.0001") if float(rate) != experiment.plan.learning_rate]
    return (
        *({**alone, "plan.fractions": fraction} for fraction in ("0.2", "0.4", "0.6", "0.8", "1.0")),
        *({**alone, "plan.fractions": "0.2", "plan.batch_size": str(size)} for size in sizes),
        *({**alone, "plan.fractions": "1.0", "plan.learning_rate": rate} for rate in rates),
    )


def words(point: Point) -> tuple[str, ...]:
    """The point as `--plan.batch_size 24 ...`."""
    return tuple(word for name, value in point.items() for word in (f"--{name}", *value.split()))


Planned = Callable[[Sequence[str]], tuple[ExperimentConfig, tuple[Stage, ...]]]
"""From words `--FIELD VALUE ...` to the experiment with these fields, and its plan."""


@dataclass(frozen=True)
class Sweep:
    """What all runs of a sweep share."""

    root: Path
    experiment: ExperimentConfig
    seeds: tuple[int, ...]
    command: tuple[str, ...]
    """The words up to `train CONFIG --FIELD VALUE ...`."""
    planned: Planned

    def cells(self, point: Point) -> list[Job]:
        """The runs of a point, scored on held-out images.

        Raises:
          InputError: if the point's fields do not go together.
        """
        try:
            _, stages = self.planned(words(point))
        except InputError as error:
            raise InputError(f"point {point_name(point)}: {error}") from error
        held_out = (*_validation_words(self.experiment, stages), *words(point))
        return [self._cell(point_name(point), held_out, seed) for seed in self.seeds]

    def final_job(self, point: Point) -> Job:
        """The run of the best point on all training images, whose test score is taken once, at the end."""
        _, stages = self.planned(words(point))
        once = ("--evaluation.every_epochs", str(max(stage.epochs for stage in stages)))
        # By the point's name: another may be the best once more of them are scored.
        return self._cell(
            f"{BEST}/{point_name(point)}", ("--data.validation_fraction", "0.0", *once, *words(point)), self.seeds[0]
        )

    def _cell(self, name: str, fields: Sequence[str], seed: int) -> Job:
        folder = self.root / name / f"seed{seed}"
        experiment, stages = self.planned(fields)
        check_finished(folder, dataclasses.replace(experiment, seed=seed), stages)
        return Job(
            name=f"{name}, seed {seed}",
            folder=folder,
            command=(*self.command, "--workdir", str(folder), *fields, "--seed", str(seed)),
            samples=sum(stage.updates * stage.batch_size for stage in stages),
        )


def _validation_words(experiment: ExperimentConfig, stages: Sequence[Stage]) -> tuple[str, ...]:
    """Fields that hold images out for scoring, and score them at the end of each stage alone."""
    share = experiment.data.validation_fraction or VALIDATION_FRACTION
    longest = max(stage.epochs for stage in stages)
    return "--data.validation_fraction", str(share), "--evaluation.every_epochs", str(longest)


@dataclass(frozen=True)
class Scored:
    """A point whose runs are finished."""

    point: Point
    top1: float
    """Mean over seeds, on the held-out images."""
    by_seed: tuple[float, ...]
    samples: int
    updates: int


def scored(root: Path, points: Iterable[Point], seeds: Sequence[int]) -> tuple[Scored, ...]:
    """The points of which every seed is finished, best first; equal ones in their own order."""
    found = []
    for point in points:
        folders = [root / point_name(point) / f"seed{seed}" for seed in seeds]
        if all((folder / SUMMARY).exists() for folder in folders):
            summaries = [read_summary(folder) for folder in folders]
            scores = tuple(float(summary["top1"]) for summary in summaries)
            found.append(
                Scored(point, sum(scores) / len(scores), scores, summaries[0]["samples"], summaries[0]["updates"])
            )
    return tuple(sorted(found, key=lambda each: -each.top1))


def left_for_training(experiment: ExperimentConfig, examples: int) -> int:
    """Training images of a point of the sweep, where the experiment has `examples`."""
    data = experiment.data
    if data.validation_fraction or data.train_examples is not None:
        return examples
    return examples - round(VALIDATION_FRACTION * examples)


def describe(sweep: Sweep, config: str, points: Sequence[Point], space: Any | None) -> dict[str, Any]:
    """What decides a sweep, as plain data for `sweep.json`."""
    searched = None if space is None else {name: _plain(value) for name, value in dataclasses.asdict(space).items()}
    return {
        "config": config,
        "experiment": to_json(sweep.experiment),
        "seeds": list(sweep.seeds),
        "points": [dict(point) for point in points],
        "search": searched,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def open_folder(root: Path, document: Mapping[str, Any]) -> None:
    """Makes the sweep's folder, or goes on with the sweep in it.

    Args:
      root: the folder.
      document: what `describe` makes.

    Raises:
      InputError: if the folder holds something else, or another sweep.
    """
    path = root / FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _check_same(root, read_json(path), document)
        elif any(root.iterdir()):
            raise InputError(f"--workdir {root} is not empty and holds no sweep: name a new folder")
        write_json(path, document)
    except OSError as error:
        raise InputError(f"--workdir {root} cannot be written: {error.strerror}") from error


def _check_same(root: Path, before: Any, now: Mapping[str, Any]) -> None:
    if not isinstance(before, dict) or not before.keys() >= now.keys():
        raise InputError(f"{root / FILE} is damaged: it is not what a sweep writes there")
    changed = [f"other {name}" for name in ("seeds", "points", "search") if before[name] != now[name]]
    try:
        names = [each["experiment"]["plan"]["strategy"] for each in (now, before)]
        found = binding_differences(*(from_json_by_name(each["experiment"]) for each in (now, before)))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{root / FILE} is damaged: it is not what a sweep writes there") from error
    # A strategy of the user's own is known by its name here: its runs have its stages on record.
    changed += [each for each in found if not each.startswith("plan.strategy:")]
    changed += [f"plan.strategy: {names[0]!r} instead of {names[1]!r}"] if names[0] != names[1] else []
    if changed:
        raise InputError(f"{root} holds another sweep ({'; '.join(changed)}): use another folder for this one")


Results = Mapping[str, Any]


def varying(results: Results) -> list[str]:
    """The fields in which the points differ."""
    points = [each["point"] for each in results["points"]]
    names = list(dict.fromkeys(name for point in points for name in point))
    return [name for name in names if len({point.get(name) for point in points}) > 1] or names
