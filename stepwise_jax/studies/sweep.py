"""Eq. 8: search for the data size, batch size and learning rate that score best on held-out training images.

A sweep is a list of points. A point sets some fields of the experiment by dotted name, and has a run for each seed, in
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
from stepwise_jax.experiment.serialization import experiment_from_document, experiment_to_dict, flatten_fields
from stepwise_jax.formatting import suggest
from stepwise_jax.plans.stage import Stage
from stepwise_jax.studies.jobs import Job
from stepwise_jax.workdir.files import SUMMARY
from stepwise_jax.workdir.folder import check_finished_run, conflicting_fields, holds_other_files, recorded_functions
from stepwise_jax.workdir.json_files import read_json, write_json
from stepwise_jax.workdir.runs import read_summary

SWEEP_FILE, RESULTS_FILE, BEST_FOLDER = "sweep.json", "results.json", "best"

VALIDATION_FRACTION = 0.1
"""Share of the training set that is held out if the configuration sets none."""

Point = Mapping[str, str]
"""Values by dotted name, as written on the command line."""

_FIXED_FIELDS = {
    "seed": "--seeds says how many runs a point has",
    "data.validation_fraction": "every point is scored on the same images",
    "evaluation.every_epochs": "every point is scored at the end of its stages",
}
"""Fields that a grid must not vary, and why."""


def point_name(point: Point) -> str:
    """The name of a point's folder: `plan.batch_size=24,plan.learning_rate=0.1`."""
    return ",".join(f"{name}={value.replace(' ', '-')}" for name, value in point.items())


def parse_grid(experiment: ExperimentConfig, grids: Sequence[str]) -> tuple[Point, ...]:
    """Parse `FIELD=V1,V2,...` into points: every combination of the values; `figure1` alone stands for three grids.

    Raises:
      InputError: for text of another form, or a name that is not a field.
    """
    if list(grids) == ["figure1"]:
        return figure1_points(experiment)
    fields, axes = flatten_fields(experiment), []
    for grid in grids:
        name, _, values = grid.partition("=")
        form = f"FIELD=V1,V2,..., FIELD a dotted name of the experiment{suggest(name, fields)}"
        require(name in fields, "--grid", grid, form)
        require(name not in _FIXED_FIELDS, "--grid", grid, f"of another field: {_FIXED_FIELDS.get(name)}")
        require(name not in [axis[0][0] for axis in axes], "--grid", grid, "a field that no other --grid has")
        texts = [value.strip() for value in values.split(",") if value.strip()]
        require(len(texts) == len(set(texts)) and bool(texts), "--grid", grid, "FIELD=V1,V2,... with different values")
        axes.append([(name, text) for text in texts])
    return tuple(dict(point) for point in itertools.product(*axes))


def figure1_points(experiment: ExperimentConfig) -> tuple[Point, ...]:
    """The points of Figure 1: three grids, each along one axis; a point that two grids share is listed once.

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


def point_arguments(point: Point) -> tuple[str, ...]:
    """The point as command-line arguments: `--plan.batch_size 24 ...`."""
    return tuple(word for name, value in point.items() for word in (f"--{name}", *value.split()))


Planner = Callable[[Sequence[str]], tuple[ExperimentConfig, tuple[Stage, ...]]]
"""A function of arguments `--FIELD VALUE ...` that returns the experiment with these fields, and its plan."""


@dataclass(frozen=True)
class Sweep:
    """The settings that all runs of a sweep share."""

    root: Path
    experiment: ExperimentConfig
    seeds: tuple[int, ...]
    command: tuple[str, ...]
    """The command up to `train CONFIG --FIELD VALUE ...`."""
    planner: Planner

    def jobs(self, point: Point) -> list[Job]:
        """The runs of a point, scored on held-out images.

        Raises:
          InputError: if the point's fields contradict each other.
        """
        try:
            _, stages = self.planner(point_arguments(point))
        except InputError as error:
            raise InputError(f"point {point_name(point)}: {error}") from error
        share = self.experiment.data.validation_fraction or VALIDATION_FRACTION
        arguments = (*scoring_arguments(share, stages), *point_arguments(point))
        return [self._job(point_name(point), arguments, seed) for seed in self.seeds]

    def final_job(self, point: Point) -> Job:
        """The run of the best point on all training images, which scores the test set once, at the end."""
        _, stages = self.planner(point_arguments(point))
        arguments = (*scoring_arguments(0.0, stages), *point_arguments(point))
        # The folder carries the point's name because another point may become the best later.
        return self._job(f"{BEST_FOLDER}/{point_name(point)}", arguments, self.seeds[0])

    def _job(self, name: str, arguments: Sequence[str], seed: int) -> Job:
        folder = self.root / name / f"seed{seed}"
        experiment, stages = self.planner(arguments)
        check_finished_run(folder, dataclasses.replace(experiment, seed=seed), stages)
        return Job(
            name=f"{name}, seed {seed}",
            folder=folder,
            command=(*self.command, "--workdir", str(folder), *arguments, "--seed", str(seed)),
            samples=sum(stage.updates * stage.batch_size for stage in stages),
        )


def scoring_arguments(validation_fraction: float, stages: Sequence[Stage]) -> tuple[str, ...]:
    """Return arguments that hold out a share of the training images, and score only at the end of each stage."""
    longest = max(stage.epochs for stage in stages)
    return "--data.validation_fraction", str(validation_fraction), "--evaluation.every_epochs", str(longest)


@dataclass(frozen=True)
class ScoredPoint:
    """A point with the scores of its finished runs."""

    point: Point
    top1: float
    """Mean over seeds, on the held-out images."""
    by_seed: tuple[float, ...]
    samples: int
    updates: int


def rank_points(root: Path, points: Iterable[Point], seeds: Sequence[int]) -> tuple[ScoredPoint, ...]:
    """The points whose runs are finished for every seed, best first; ties keep their order."""
    ranked = []
    for point in points:
        folders = [root / point_name(point) / f"seed{seed}" for seed in seeds]
        if all((folder / SUMMARY).exists() for folder in folders):
            summaries = [read_summary(folder) for folder in folders]
            scores = tuple(float(summary["top1"]) for summary in summaries)
            ranked.append(
                ScoredPoint(point, sum(scores) / len(scores), scores, summaries[0]["samples"], summaries[0]["updates"])
            )
    return tuple(sorted(ranked, key=lambda each: -each.top1))


def examples_without_validation(experiment: ExperimentConfig, examples: int) -> int:
    """The number of training images of each point, if the experiment has `examples`."""
    data = experiment.data
    if data.validation_fraction or data.train_examples is not None:
        return examples
    return examples - round(VALIDATION_FRACTION * examples)


def sweep_to_dict(sweep: Sweep, config: str, points: Sequence[Point], space: Any | None) -> dict[str, Any]:
    """Everything that determines a sweep, as plain data for `sweep.json`."""
    search = None if space is None else {name: _to_json(value) for name, value in dataclasses.asdict(space).items()}
    return {
        "config": config,
        "experiment": experiment_to_dict(sweep.experiment),
        "functions": recorded_functions(sweep.experiment),
        "seeds": list(sweep.seeds),
        "points": [dict(point) for point in points],
        "search": search,
    }


def _to_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def open_sweep_folder(root: Path, document: Mapping[str, Any]) -> None:
    """Create the sweep's folder, or continue the sweep in it.

    Args:
      root: the folder.
      document: of `sweep_to_dict`.

    Raises:
      InputError: if the folder holds something else, or another sweep.
    """
    path = root / SWEEP_FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Before the document is looked for, because several commands may start at once.
        others = holds_other_files(root, SWEEP_FILE)
        if path.exists():
            _check_same(root, read_json(path), document)
        elif others:
            raise InputError(f"--workdir {root} is not empty and holds no sweep: name a new folder")
        write_json(path, document)
    except OSError as error:
        raise InputError(f"--workdir {root} cannot be written: {error.strerror}") from error


def _check_same(root: Path, before: Any, now: Mapping[str, Any]) -> None:
    if not isinstance(before, dict) or not before.keys() >= now.keys() - {"functions"}:
        raise InputError(f"{root / SWEEP_FILE} is damaged: it is JSON, but no sweep")
    changed = [f"other {name}" for name in ("seeds", "points", "search") if before[name] != now[name]]
    try:
        strategies = [each["experiment"]["plan"]["strategy"] for each in (now, before)]
        conflicts = conflicting_fields(*(experiment_from_document(each) for each in (now, before)))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{root / SWEEP_FILE} is damaged: it is JSON, but no sweep") from error
    # A user-defined strategy is compared by its name only: each run compares its recorded stages itself.
    changed += [conflict for conflict in conflicts if not conflict.startswith("plan.strategy:")]
    if strategies[0] != strategies[1]:
        changed.append(f"plan.strategy: {strategies[0]!r} instead of {strategies[1]!r}")
    if changed:
        raise InputError(f"{root} holds another sweep ({'; '.join(changed)}): use another folder for this one")


def check_sweep_folder(root: Path, document: Mapping[str, Any]) -> None:
    """Check that the sweep in a folder is the one of a document; see `open_sweep_folder`."""
    _check_same(root, read_json(root / SWEEP_FILE), document)


SweepResults = Mapping[str, Any]
"""The document of `results.json`."""


def varying_fields(results: SweepResults) -> list[str]:
    """The fields in which the points differ; all fields if they differ in none."""
    points = [each["point"] for each in results["points"]]
    names = list(dict.fromkeys(name for point in points for name in point))
    return [name for name in names if len({point.get(name) for point in points}) > 1] or names
