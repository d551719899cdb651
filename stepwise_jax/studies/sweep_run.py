"""Executes a sweep: the points of a grid, or those that a search asks for, and at the end the best one's test run."""

from collections.abc import Callable, Sequence
from typing import Any

from stepwise_jax.errors import StepwiseError
from stepwise_jax.studies import search
from stepwise_jax.studies.jobs import Failure, Job
from stepwise_jax.studies.sweep import RESULTS, Point, Scored, Sweep, point_name, scored
from stepwise_jax.workdir import folder
from stepwise_jax.workdir.json_files import read_json, write_json

Execute = Callable[[Sequence[Job]], list[Failure]]


def run_grid(sweep: Sweep, points: Sequence[Point], execute: Execute) -> dict[str, Any]:
    """Scores the points of a grid and tests the best; returns what `results.json` holds.

    Raises:
      StepwiseError: if no point could be scored.
    """
    cells = [cell for point in points for cell in sweep.cells(point)]
    failures = execute(cells)
    return _finish(sweep, points, failures, execute)


def run_search(sweep: Sweep, study: search.Search, trials: int, at_a_time: int, execute: Execute) -> dict[str, Any]:
    """Scores the points that a search asks for and tests the best; returns what `results.json` holds.

    Raises:
      StepwiseError: if no point could be scored.
    """
    failures: list[Failure] = []

    def score(points: Sequence[Point]) -> list[float | None]:
        failures.extend(execute([cell for point in points for cell in sweep.cells(point)]))
        found = {point_name(each.point): each.top1 for each in scored(sweep.root, points, sweep.seeds)}
        return [found.get(point_name(point)) for point in points]

    search.run(study, trials, at_a_time, score)
    return _finish(sweep, study.told(), failures, execute)


def _finish(sweep: Sweep, points: Sequence[Point], failures: Sequence[Failure], execute: Execute) -> dict[str, Any]:
    ranked = scored(sweep.root, {point_name(point): point for point in points}.values(), sweep.seeds)
    if not ranked:
        told = f": {failures[0].cell.name}: {failures[0].message}" if failures else ""
        raise StepwiseError(f"no point of the sweep could be scored{told}")
    final = sweep.final_job(ranked[0].point)
    failures = [*failures, *execute([final])]
    results = {
        "points": [_document(each) for each in ranked],
        "best": dict(ranked[0].point),
        "test": read_json(final.folder / folder.SUMMARY) if final.done else None,
        "failures": [{"run": each.cell.name, "status": each.status, "message": each.message} for each in failures],
    }
    write_json(sweep.root / RESULTS, results)
    return results


def _document(each: Scored) -> dict[str, Any]:
    cost = {"samples": each.samples, "updates": each.updates}
    return {"point": dict(each.point), "top1": each.top1, "by_seed": list(each.by_seed), **cost}
