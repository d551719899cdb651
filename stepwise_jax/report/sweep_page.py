"""A sweep as a page: the best point, what it scored on the test set, and every point beside it."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from stepwise_jax.errors import InputError
from stepwise_jax.formatting import format_percent
from stepwise_jax.report.blocks import Block, Heading, Notes, Paragraph, Picture, Table, Verdict
from stepwise_jax.report.figures import WIDTH, Theme, make_picture
from stepwise_jax.studies import sweep
from stepwise_jax.studies.sweep import Results, varying
from stepwise_jax.workdir.json_files import read_json

_DRAWN = 40


def sweep_page(root: Path) -> tuple[Block, ...]:
    """What there is to say about the finished sweep in a folder.

    Raises:
      InputError: if it is not finished, or damaged.
    """
    if not (root / sweep.RESULTS).exists():
        raise InputError(f"{root} has no results yet: run the same sweep command to its end")
    results = read_json(root / sweep.RESULTS)
    try:
        return _blocks(results)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{root / sweep.RESULTS} is damaged: it is not what a sweep writes there") from error


def _blocks(results: Results) -> tuple[Block, ...]:
    names = varying(results)
    failures = tuple(f"{each['run']} failed: {each['message']}" for each in results["failures"])
    told = (
        "Each point was trained on the training images that were not held out, and scored on those that were. The best "
        "point was then trained on all training images, and the test set was scored once."
    )
    return (
        Heading(f"Sweep over {', '.join(names)}", level=1),
        Verdict(_verdict(results, names)),
        Paragraph(told),
        Heading("Points, best first"),
        _picture(results, names),
        _table(results, names),
        *([Heading("Failures"), Notes(failures)] if failures else []),
    )


def _words(point: Mapping[str, str], names: Sequence[str]) -> str:
    return ", ".join(f"{name.removeprefix('plan.')} {point[name]}" for name in names if name in point)


def _verdict(results: Results, names: Sequence[str]) -> str:
    best, test = results["points"][0], results["test"]
    reached = "its test run is missing"
    if test is not None:
        reached = f"on the test set it reached {format_percent(test['top1'])} top-1"
    return (
        f"Of {len(results['points'])} points, {_words(best['point'], names)} scored best on held-out images, "
        f"{format_percent(best['top1'])}; {reached}."
    )


def _table(results: Results, names: Sequence[str]) -> Table:
    header = (*(name.removeprefix("plan.") for name in names), "held-out top-1", "seeds", "samples", "updates")
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


def _picture(results: Results, names: Sequence[str]) -> Picture:
    described = "Top-1 on held-out images of the best points, every seed"
    return make_picture("points", described, [(described, partial(_draw, results["points"][:_DRAWN], names))])


def _draw(points: Sequence[Results], names: Sequence[str], theme: Theme) -> Figure:
    figure = Figure(figsize=(WIDTH, 0.9 + 0.24 * len(points)), layout="constrained")
    axes = figure.subplots()
    for place, each in enumerate(points):
        axes.plot([100 * value for value in each["by_seed"]], [place] * len(each["by_seed"]), "|", color=theme.ink)
        axes.plot(100 * each["top1"], place, "o", color=theme.runs[0], markersize=5)
    axes.set(yticks=range(len(points)), ylim=(len(points) - 0.4, -0.6), xlabel="Top-1 on held-out images (%)")
    axes.set_yticklabels([_words(each["point"], names) for each in points], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(color=theme.faint, linewidth=0.5, alpha=0.6)
    return figure
