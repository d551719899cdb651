"""Runs as a page to read, from their records alone; the same records give the same bytes."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from stepwise_jax.errors import InputError
from stepwise_jax.report import rendering
from stepwise_jax.report.blocks import Block, Heading, Notes, Paragraph, Table, Verdict
from stepwise_jax.report.comparison_page import comparison_page
from stepwise_jax.report.curves import draw_curves
from stepwise_jax.report.paper_section import paper_blocks
from stepwise_jax.report.run_section import flat_fields, run_blocks, runs_table, setting, shown, verdict
from stepwise_jax.report.series import group_series
from stepwise_jax.report.sweep_page import sweep_page
from stepwise_jax.studies import comparison_folder, sweep
from stepwise_jax.workdir.runs import Run, read_runs


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Writes `report.md`, `report.html`, and their pictures as PNG and SVG.

    Args:
      folders: of runs, finished or not, several of which are laid over each other in the curves; or that of one
        comparison or of one sweep.
      out: the folder to write to, made where it is missing.

    Returns:
      The path of `report.html`.

    Raises:
      InputError: for a folder that has nothing to show, or an `out` that cannot be written.
    """
    if not folders:
        raise InputError("a report needs the folder of at least one run")
    return rendering.write(_blocks(folders), out)


def _blocks(folders: Sequence[Path]) -> tuple[Block, ...]:
    kinds = {comparison_folder.FILE: comparison_page, sweep.FILE: sweep_page}
    whole = [(folder, kind) for folder in folders for name, kind in kinds.items() if (folder / name).exists()]
    if whole and len(folders) > 1:
        raise InputError(f"{whole[0][0]} holds many runs: a comparison or a sweep has a report of its own")
    return whole[0][1](whole[0][0]) if whole else runs_page(read_runs(folders))


def runs_page(runs: Sequence[Run]) -> tuple[Block, ...]:
    """What there is to say about some runs, in reading order."""
    title = f"Step-wise training: {', '.join(run.name for run in runs)}"
    opening: list[Block] = [Heading(title, level=1)]
    if len(runs) == 1:
        opening += [Verdict(verdict(runs[0])), Paragraph(setting(runs[0]))]
    else:
        opening += [Notes(tuple(f"{verdict(run)} {setting(run)}" for run in runs))]
        opening += [Heading("The runs side by side"), runs_table(runs), *_differences(runs)]
    opening += [*paper_blocks(runs), Heading("Curves"), draw_curves(group_series(runs))]
    each = (run_blocks(run, place, alone=len(runs) == 1) for place, run in enumerate(runs, start=1))
    return (*opening, *itertools.chain.from_iterable(each))


def _differences(runs: Sequence[Run]) -> list[Block]:
    fields = [flat_fields(run.config["experiment"]) for run in runs]
    names = sorted({name for each in fields for name in each})
    rows = [(name, *(shown(each.get(name)) for each in fields)) for name in names]
    differing = tuple(row for row in rows if len(set(row[1:])) > 1)
    if not differing:
        return [Paragraph("All fields of their experiments are the same.")]
    return [Paragraph("They differ in:"), Table(("field", *(run.name for run in runs)), differing, prose=True)]
