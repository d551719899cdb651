"""The page of a sweep: the best point, its test score, and all points."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from stepwise_jax.errors import InputError
from stepwise_jax.formatting import format_percent
from stepwise_jax.report.blocks import Block, Heading, Notes, Paragraph, Picture, Table, Verdict
from stepwise_jax.report.figures import WIDTH, Theme, make_picture, wrapped
from stepwise_jax.studies import sweep
from stepwise_jax.studies.sweep import SweepResults, varying_fields
from stepwise_jax.workdir.json_files import read_json

_DRAWN = 40


def sweep_page(root: Path) -> tuple[Block, ...]:
    """Return the page of the finished sweep in a folder.

    Raises:
      InputError: if the sweep is not finished, or damaged.
    """
    if not (root / sweep.RESULTS_FILE).exists():
        raise InputError(f"{root} has no results yet: run the same sweep command again to finish it")
    results = read_json(root / sweep.RESULTS_FILE)
    try:
        return _blocks(results)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{root / sweep.RESULTS_FILE} is damaged: fields of a sweep are missing") from error


def _blocks(results: SweepResults) -> tuple[Block, ...]:
    names = varying_fields(results)
    failures = tuple(f"{each['run']} failed: {each['message']}" for each in results["failures"])
    explanation = (
        "Each point was trained on a part of the training images and scored on the held-out rest. The best point was "
        "then trained on all training images and scored once on the test set."
    )
    return (
        Heading(f"Sweep over {', '.join(names)}", level=1),
        Verdict(_verdict(results, names)),
        Paragraph(explanation),
        Heading("Points, best first"),
        Paragraph(
            "Each tick is a seed; look at whether the first points lie further apart than the seeds of one point."
        ),
        _picture(results, names),
        _table(results, names),
        *([Heading("Failures"), Paragraph("Points that have no score, and why."), Notes(failures)] if failures else []),
    )


def _point_label(point: Mapping[str, str], names: Sequence[str]) -> str:
    return ", ".join(f"{_words(name)} {point[name]}" for name in names if name in point)


def _words(field: str) -> str:
    """A field in words: `batch size` for "plan.batch_size"."""
    return field.removeprefix("plan.").replace("_", " ")


def _verdict(results: SweepResults, names: Sequence[str]) -> str:
    best, test = results["points"][0], results["test"]
    reached = "its test run is missing"
    if test is not None:
        reached = f"on the test set it reached {format_percent(test['top1'])} top-1"
    return (
        f"Of {len(results['points'])} points, {_point_label(best['point'], names)} scored best on held-out images, "
        f"{format_percent(best['top1'])}; {reached}."
    )


def _table(results: SweepResults, names: Sequence[str]) -> Table:
    header = (*map(_words, names), "held-out top-1", "seeds", "samples planned", "updates")
    table = tuple(
        (
            *(each["point"].get(name, "–") for name in names),
            format_percent(each["top1"]),
            str(len(each["by_seed"])),
            f"{each['samples']:,}",
            f"{each['updates']:,}",
        )
        for each in results["points"]
    )
    return Table(header, table)


def _picture(results: SweepResults, names: Sequence[str]) -> Picture:
    description = "Top-1 on held-out images of the best points, every seed"
    return make_picture("points", description, partial(_draw, results["points"][:_DRAWN], names))


def _draw(points: Sequence[SweepResults], names: Sequence[str], theme: Theme) -> Figure:
    labels = [wrapped(_point_label(each["point"], names), 40) for each in points]
    lines = sum(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(WIDTH, 0.9 + 0.1 * len(points) + 0.15 * lines), layout="constrained")
    axes = figure.subplots()
    for index, each in enumerate(points):
        scores = [100 * value for value in each["by_seed"]]
        axes.plot(scores, [index] * len(scores), "|", color=theme.foreground)
        axes.plot(100 * each["top1"], index, "o", color=theme.palette[0], markersize=5)
    axes.set(yticks=range(len(points)), ylim=(len(points) - 0.4, -0.6), xlabel="Top-1 on held-out images (%)")
    axes.set_yticklabels(labels, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(color=theme.muted, linewidth=0.5, alpha=0.6)
    return figure
