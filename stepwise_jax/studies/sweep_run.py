"""Executes a sweep: trains the points of a grid or of a search, and tests the best one at the end."""

from collections.abc import Callable, Sequence
from typing import Any

from stepwise_jax.errors import StepwiseError
from stepwise_jax.studies import search
from stepwise_jax.studies.jobs import Failure, Job
from stepwise_jax.studies.sweep import RESULTS_FILE, Point, ScoredPoint, Sweep, point_name, rank_points
from stepwise_jax.workdir.files import SUMMARY
from stepwise_jax.workdir.json_files import read_json, write_json

Execute = Callable[[Sequence[Job]], list[Failure]]
"""Trains jobs and returns those that failed."""


def run_grid(sweep: Sweep, points: Sequence[Point], execute: Execute) -> dict[str, Any]:
    """Score the points of a grid and test the best one; return the document of `results.json`.

    Raises:
      StepwiseError: if no point could be scored.
    """
    jobs = [job for point in points for job in sweep.jobs(point)]
    failures = execute(jobs)
    return _finish(sweep, points, failures, execute)


def run_search(sweep: Sweep, study: search.Search, trials: int, at_a_time: int, execute: Execute) -> dict[str, Any]:
    """Score the points that a search suggests and test the best one; return the document of `results.json`.

    Raises:
      StepwiseError: if no point could be scored.
    """
    failures: list[Failure] = []

    def score(points: Sequence[Point]) -> list[float | None]:
        failures.extend(execute([job for point in points for job in sweep.jobs(point)]))
        scores = {point_name(each.point): each.top1 for each in rank_points(sweep.root, points, sweep.seeds)}
        return [scores.get(point_name(point)) for point in points]

    search.run(study, trials, at_a_time, score)
    return _finish(sweep, study.scored_points(), failures, execute)


def _finish(sweep: Sweep, points: Sequence[Point], failures: Sequence[Failure], execute: Execute) -> dict[str, Any]:
    ranked = rank_points(sweep.root, {point_name(point): point for point in points}.values(), sweep.seeds)
    if not ranked:
        reason = f": {failures[0].job.name}: {failures[0].message}" if failures else ""
        raise StepwiseError(f"no point of the sweep could be scored{reason}")
    final = sweep.final_job(ranked[0].point)
    failures = [*failures, *execute([final])]
    results = {
        "points": [_scored_point_to_dict(each) for each in ranked],
        "best": dict(ranked[0].point),
        "test": read_json(final.folder / SUMMARY) if final.done else None,
        "failures": [failure.to_dict() for failure in failures],
    }
    write_json(sweep.root / RESULTS_FILE, results)
    return results


def _scored_point_to_dict(scored: ScoredPoint) -> dict[str, Any]:
    cost = {"samples": scored.samples, "updates": scored.updates}
    return {"point": dict(scored.point), "top1": scored.top1, "by_seed": list(scored.by_seed), **cost}
