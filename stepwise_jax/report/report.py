"""The report of runs, made from their records alone; the same records give the same bytes."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from stepwise_jax.errors import InputError
from stepwise_jax.report import rendering
from stepwise_jax.report.blocks import Block, Heading, Notes, Paragraph, Table, Verdict
from stepwise_jax.report.comparisons.comparison_page import comparison_page
from stepwise_jax.report.comparisons.variance_page import variance_page
from stepwise_jax.report.curves import draw_curves
from stepwise_jax.report.paper_section import paper_blocks
from stepwise_jax.report.run_section import (
    flat_fields,
    format_value,
    run_blocks,
    run_verdict,
    runs_table,
    setting_sentence,
)
from stepwise_jax.report.series import group_series
from stepwise_jax.report.sweep_page import sweep_page
from stepwise_jax.studies import comparison_folder, sweep
from stepwise_jax.workdir.runs import Run, read_runs


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


def _blocks(folders: Sequence[Path]) -> tuple[Block, ...]:
    pages = {comparison_folder.COMPARISON_FILE: comparison_page, sweep.SWEEP_FILE: sweep_page}
    studies = [(folder, page) for folder in folders for name, page in pages.items() if (folder / name).exists()]
    if not studies:
        return runs_page(read_runs(folders))
    folder, page = studies[0]
    if len(folders) > 1 and [page for _, page in studies] == [comparison_page] * len(folders):
        return variance_page(folders)
    if len(folders) > 1:
        raise InputError(f"{folder} is a comparison or a sweep: report it alone, without other folders")
    return page(folder)


def runs_page(runs: Sequence[Run]) -> tuple[Block, ...]:
    """Return the page of one or several runs."""
    title = f"Step-wise training: {', '.join(run.name for run in runs)}"
    opening: list[Block] = [Heading(title, level=1)]
    if len(runs) == 1:
        opening += [Verdict(run_verdict(runs[0])), Paragraph(setting_sentence(runs[0]))]
    else:
        opening += [Notes(tuple(f"{run_verdict(run)} {setting_sentence(run)}" for run in runs))]
        opening += [Heading("Summary"), runs_table(runs), *_differences(runs)]
    opening += [*paper_blocks(runs), Heading("Curves"), draw_curves(group_series(runs))]
    sections = (run_blocks(run, number, alone=len(runs) == 1) for number, run in enumerate(runs, start=1))
    return (*opening, *itertools.chain.from_iterable(sections))


def _differences(runs: Sequence[Run]) -> list[Block]:
    fields = [flat_fields(run.config["experiment"]) for run in runs]
    names = sorted({name for each in fields for name in each})
    rows = [(name, *(format_value(each.get(name)) for each in fields)) for name in names]
    differing = tuple(row for row in rows if len(set(row[1:])) > 1)
    if not differing:
        return [Paragraph("All runs have the same configuration.")]
    header = ("field", *(run.name for run in runs))
    return [Paragraph("Their configurations differ in these fields:"), Table(header, differing, prose=True)]
