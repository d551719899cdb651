"""The page of a comparison, from runs that the tests write."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import SECONDS, make_comparison
from page_blocks import after

from stepwise_jax.errors import InputError
from stepwise_jax.report import report
from stepwise_jax.report.blocks import Picture, Table, Verdict
from stepwise_jax.report.comparisons.comparison_page import comparison_page
from stepwise_jax.report.page import rendering
from stepwise_jax.studies.results import read_results
from stepwise_jax.workdir.json_files import write_json
from stepwise_jax.workdir.record_file import RunRecords, read_records


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    return make_comparison(tmp_path_factory.mktemp("compared") / "c")


def test_a_comparison_states_its_verdict(compared):
    blocks = comparison_page(read_results(compared))
    (verdict,) = (block for block in blocks if isinstance(block, Verdict))
    table = after(blocks, "Paired differences", Table)
    assert isinstance(table, Table)
    # By hand: the baseline's last epoch is 0.9 - 0.8 / 6 + 0.01 (1 + seed / 10), the staged run's 0.9 - 0.8 / 20.
    differences = [100 * (0.8 / 6 - 0.8 / 20 - 0.01 * (1 + seed / 10)) for seed in range(3)]
    row = dict(zip(table.header, table.rows[1], strict=True))
    assert (row["strategy"], row["reference is"], row["seeds"]) == ("baseline", "better", "3")
    assert float(row["ahead by"]) == pytest.approx(np.mean(differences), abs=0.006)
    assert verdict.text.startswith(f"stepwise is better than baseline (+{np.mean(differences):.2f}")
    assert [block.name for block in blocks if isinstance(block, Picture)] == [
        "differences",
        "curves",
        "seconds",
        "classes",
        "confusion",
    ]


def test_the_cost_of_the_references_accuracy(compared):
    """By hand: the staged run ends at 86 %, its last epoch; the baseline ends below 79 %."""
    tables = [block for block in comparison_page(read_results(compared)) if isinstance(block, Table)]
    (table,) = (each for each in tables if "runs that reach it" in each.header)
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["runs that reach it"] for row in rows] == ["3 of 3", "0 of 3"]
    assert (rows[0]["epochs"], rows[0]["samples fed"], rows[0]["of the reference"]) == ("20", "16,224", "100%")
    assert rows[0]["seconds"] == f"{20 * sum(SECONDS.values()):,.0f}"
    assert list(rows[1].values())[2:] == ["–"] * 4


def test_an_unfinished_comparison_says_so(compared, tmp_path):
    root = make_comparison(tmp_path / "c", seeds=(0, 1))
    (root / "baseline" / "seed1" / "summary.json").unlink()
    failure = {"run": "baseline, seed 1", "status": 3, "message": "the loss is <nan>"}
    write_json(root / "failures.json", {"failures": [failure]})
    text = rendering.to_markdown(comparison_page(read_results(root)))
    assert "3 of 4 runs are finished" in text
    assert r"baseline, seed 1 failed: the loss is \<nan\>" in text
    assert "One seed shows no difference" in text


def test_the_same_comparison_gives_the_same_bytes(compared, tmp_path):
    pages = [report.write_report([compared], tmp_path / name).parent for name in ("one", "two")]
    files = [sorted(path.name for path in folder.iterdir()) for folder in pages]
    assert files[0] == files[1]
    for name in files[0]:
        assert (pages[0] / name).read_bytes() == (pages[1] / name).read_bytes(), name


def test_the_page_of_a_comparison_reads_each_run_once(compared, monkeypatch):
    read = []

    def counting(folder: Path) -> RunRecords:
        read.append(folder)
        return read_records(folder)

    monkeypatch.setattr("stepwise_jax.workdir.runs.read_records", counting)
    monkeypatch.setattr("stepwise_jax.report.figures._render", lambda draw, formats, theme: [b""] * len(formats))
    comparison_page(read_results(compared))
    assert sorted(read) == sorted(path.parent.resolve() for path in compared.glob("*/*/records.jsonl"))


def test_a_comparison_is_reported_alone(compared, tmp_path):
    with pytest.raises(InputError, match="report it alone"):
        report.write_report([compared, compared / "baseline" / "seed0"], tmp_path / "out")
    empty = make_comparison(tmp_path / "c", seeds=(0,))
    for summary in empty.glob("*/*/summary.json"):
        summary.unlink()
    with pytest.raises(InputError, match="no finished run yet"):
        report.write_report([empty], tmp_path / "out")
