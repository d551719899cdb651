"""The report of runs, made from their records alone; the same records give the same bytes."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from stepwise_jax.errors import InputError
from stepwise_jax.report.blocks import Block, Heading, Paragraph, Verdict
from stepwise_jax.report.charts.seconds import draw_seconds, seconds_by_kind
from stepwise_jax.report.comparisons.comparison_page import comparison_page
from stepwise_jax.report.comparisons.variance_page import variance_page
from stepwise_jax.report.curves import draw_curves
from stepwise_jax.report.page import rendering
from stepwise_jax.report.paper_section import paper_blocks
from stepwise_jax.report.run_section import (
    differences_blocks,
    folded_run,
    run_blocks,
    run_verdict,
    runs_table,
    runs_verdict,
    setting_sentence,
    shared_images_blocks,
)
from stepwise_jax.report.series import run_series
from stepwise_jax.report.sweep_page import sweep_page
from stepwise_jax.studies import sweep
from stepwise_jax.studies.comparison_file import COMPARISON_FILE
from stepwise_jax.studies.results import Results, read_results
from stepwise_jax.workdir.runs import Run, read_runs

_MOST_DRAWN = 4
"""Of more runs than this, only those figures are drawn that show all of them together."""


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write `report.md`, `report.html`, and their pictures as PNG and SVG.

    Args:
      folders: the folders of runs, finished or not, whose curves are drawn in the same axes; or the folder of one
        comparison or one sweep; or those of comparisons that differ in which random numbers they vary.
      out: the folder to write to, created if it is missing.

    Returns:
      The path of `report.html`.

    Raises:
      InputError: if a folder has nothing to show, or `out` cannot be written.
    """
    if not folders:
        raise InputError("a report needs the folder of at least one run")
    return rendering.write_page(_blocks(folders), out)


def write_comparison(results: Results, out: Path) -> Path:
    """Write the report of a comparison that is already read; see `write_report`."""
    return rendering.write_page(comparison_page(results), out)


def _blocks(folders: Sequence[Path]) -> tuple[Block, ...]:
    pages = {COMPARISON_FILE: _comparison, sweep.SWEEP_FILE: sweep_page}
    studies = [(folder, page) for folder in folders for name, page in pages.items() if (folder / name).exists()]
    if not studies:
        return runs_page(read_runs(folders))
    folder, page = studies[0]
    if len(folders) > 1 and [page for _, page in studies] == [_comparison] * len(folders):
        return variance_page(folders)
    if len(folders) > 1:
        raise InputError(f"{folder} is a comparison or a sweep: report it alone, without other folders")
    return page(folder)


def _comparison(folder: Path) -> tuple[Block, ...]:
    return comparison_page(read_results(folder))


def runs_page(runs: Sequence[Run]) -> tuple[Block, ...]:
    """Return the page of one or several runs."""
    if len(runs) > 1:
        return _several_runs(runs)
    (run,) = runs
    return (
        Heading(f"Step-wise training: {run.name}", level=1),
        Verdict(run_verdict(run)),
        Paragraph(setting_sentence(run)),
        *shared_images_blocks(run),
        *_curves(runs),
        *run_blocks(run),
    )


def _several_runs(runs: Sequence[Run]) -> tuple[Block, ...]:
    sections = (folded_run(run, number, len(runs) <= _MOST_DRAWN) for number, run in enumerate(runs, start=1))
    return (
        Heading(f"Step-wise training: {len(runs)} runs", level=1),
        Verdict(runs_verdict(runs)),
        Heading("The runs"),
        Paragraph("What the runs reached, and the fields in which they differ; the colours are those of the curves."),
        *differences_blocks(runs),
        runs_table(runs),
        *_curves(runs),
        *paper_blocks(runs),
        Heading("Time"),
        Paragraph("Look for a run that waited or compiled longer than the others."),
        draw_seconds("seconds", {run.name: seconds_by_kind(run) for run in runs}),
        *itertools.chain.from_iterable(sections),
    )


def _curves(runs: Sequence[Run]) -> tuple[Block, ...]:
    lead = (
        "Look at the test accuracy at the end of each stage, and at the data, batch size and learning rate of that "
        "stage. Where lines coincide, they are drawn side by side."
    )
    return (Heading("Curves"), Paragraph(lead), draw_curves(run_series(runs)))
