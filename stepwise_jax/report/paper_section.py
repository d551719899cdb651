"""The part of a page that sets the paper's reported scores beside the measured ones."""

from collections.abc import Sequence

from stepwise_jax.experiment import paper
from stepwise_jax.report.blocks import Block, Heading, Notes, Paragraph, Table
from stepwise_jax.workdir.runs import Run

_HEADER = ("row", "run", "paper top-1", "measured", "difference", "paper top-5", "measured", "difference")


def paper_blocks(runs: Sequence[Run], level: int = 2) -> list[Block]:
    """Paper, measured, difference for each run that reproduces a row, and what is wrong in the paper about it."""
    known = [(run, found) for run in runs if (found := _result(run)) is not None]
    rows = [row for run, found in known for row in _rows(run, found)]
    if not rows:
        return []
    told = (
        "Top-1 and top-5 on the test set in per cent; differences in points. The paper reports one run a row and no "
        "interval: on 10,000 test images the standard error of a difference of two runs is about 0.7 points."
    )
    notes = tuple(dict.fromkeys(f"{found.table}: {note}" for _, found in known for note in found.notes))
    return [
        Heading("Beside the paper", level),
        Paragraph(told),
        Table(_HEADER, tuple(rows)),
        *([Notes(notes)] if notes else []),
    ]


def _result(run: Run) -> paper.Result | None:
    return paper.result(str(run.config["experiment"].get("reproduces") or ""))


def _rows(run: Run, found: paper.Result) -> list[tuple[str, ...]]:
    ends = {row["stage"]: row for row in run.records.epochs if row["epoch"] == run.stages[row["stage"] - 1]["epochs"]}
    title = f"{found.table}, {found.network} on {found.dataset}: {found.row}"
    rows = [
        _row(f"{title}, stage {each.name}", run, each.top1, each.top5, ends.get(place))
        for place, each in enumerate(found.stages, start=1)
    ]
    if not found.stages and found.top1 is not None:
        rows.append(_row(title, run, found.top1, found.top5, ends.get(len(run.stages))))
    return rows


def _row(title: str, run: Run, top1: float | None, top5: float | None, end: dict[str, float] | None) -> tuple[str, ...]:
    measured = end or {}
    return (title, run.name, *_compared(top1, measured.get("top1")), *_compared(top5, measured.get("top5")))


def _compared(reported: float | None, measured: float | None) -> tuple[str, str, str]:
    difference = "–" if reported is None or measured is None else f"{100 * measured - reported:+.2f}".replace("-", "−")
    return (
        "–" if reported is None else f"{reported:g}",
        "–" if measured is None else f"{100 * measured:.2f}",
        difference,
    )
