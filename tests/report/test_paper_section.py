"""Measured scores beside the paper's."""

import json
from pathlib import Path

import pytest
from made_runs import BASELINE, STEPWISE, make_run

from stepwise_jax.experiment import paper
from stepwise_jax.report.blocks import Heading, Notes, Table
from stepwise_jax.report.paper_section import paper_blocks
from stepwise_jax.workdir.json_files import write_json
from stepwise_jax.workdir.runs import read_runs


def reproducing(folder: Path, key: str, plan=STEPWISE) -> Path:
    make_run(folder, plan)
    document = json.loads((folder / "config.json").read_text())
    document["experiment"]["reproduces"] = key
    write_json(folder / "config.json", document)
    return folder


def test_the_paper_is_compared_with_the_measured_scores(tmp_path):
    folders = [reproducing(tmp_path / "a", "IV-scratch/stepwise"), reproducing(tmp_path / "b", "I/baseline", BASELINE)]
    runs = read_runs([*folders, make_run(tmp_path / "none")])
    heading, _, table, *rest = paper_blocks(runs)
    assert heading == Heading("Comparison with the paper")
    assert isinstance(table, Table)
    assert len(table.rows) == 6
    measured = [row["top1"] for row in runs[0].records.epochs if row["epoch"] == 4]
    for row, top1, printed in zip(table.rows, measured, (13.0218, 21.8970, 30.2851, 38.2772, 54.9901), strict=False):
        assert (row[1], row[2], row[3]) == ("a", f"{printed:g}", f"{100 * top1:.2f}")
        assert float(row[4].replace("−", "-")) == pytest.approx(100 * top1 - printed, abs=0.006)
    assert table.rows[5][1:3] == ("b", "64.94")
    found = paper.find_result("IV-scratch/stepwise")
    assert found is not None
    notes = [block for block in rest if isinstance(block, Notes)]
    assert all(any(note in item for item in notes[0].items) for note in found.notes)


def test_runs_that_reproduce_nothing_have_no_such_section(tmp_path):
    assert paper_blocks(read_runs([reproducing(tmp_path / "a", "no/such row")])) == []
