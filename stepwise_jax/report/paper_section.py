"""The section that compares the paper's reported scores with the measured ones."""

from collections.abc import Sequence

from stepwise_jax.experiment.paper import find_result
from stepwise_jax.experiment.paper_result import PaperResult
from stepwise_jax.report.blocks import Block, Heading, Notes, Paragraph, Table
from stepwise_jax.workdir.runs import Run

_HEADER = ("row", "run", "paper top-1", "measured", "difference", "paper top-5", "measured", "difference")


def paper_blocks(runs: Sequence[Run], level: int = 2) -> list[Block]:
    """Compare each run that reproduces a row with the paper, and list the paper's errors about these rows."""
    known = [(run, result) for run in runs if (result := _find_result(run)) is not None]
    rows = [row for run, result in known for row in _rows(run, result)]
    if not rows:
        return []
    explanation = (
        "Top-1 and top-5 on the test set in percent; differences in points. The paper reports one run per row and no "
        "interval. On 10,000 test images, the standard error of the difference between two runs is about 0.7 points: "
        "look for differences of more than twice that."
    )
    notes = tuple(dict.fromkeys(f"{result.table}: {note}" for _, result in known for note in result.notes))
    return [
        Heading("Comparison with the paper", level),
        Paragraph(explanation),
        Table(_HEADER, tuple(rows)),
        *([Notes(notes)] if notes else []),
    ]


def _find_result(run: Run) -> PaperResult | None:
    return find_result(str(run.config["experiment"].get("reproduces") or ""))


def _rows(run: Run, result: PaperResult) -> list[tuple[str, ...]]:
    ends = {row["stage"]: row for row in run.records.epochs if row["epoch"] == run.stages[row["stage"] - 1]["epochs"]}
    title = f"{result.table}, {result.network} on {result.dataset}: {result.row}"
    rows = [
        _row(f"{title}, stage {stage.name}", run, stage.top1, stage.top5, ends.get(number))
        for number, stage in enumerate(result.stages, start=1)
    ]
    if not result.stages and result.top1 is not None:
        rows.append(_row(title, run, result.top1, result.top5, ends.get(len(run.stages))))
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
