"""Pages of predictions, the paper, a comparison and a sweep, from files that the tests write."""

import dataclasses
import json
import os
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import BASELINE, SECONDS, STEPWISE, make_comparison, make_predictions, make_run

from stepwise_jax.errors import InputError
from stepwise_jax.experiment import paper
from stepwise_jax.report import report
from stepwise_jax.report.blocks import Block, Folded, Heading, ImageGrid, Notes, Paragraph, Picture, Table, Verdict
from stepwise_jax.report.charts.seconds import draw_seconds
from stepwise_jax.report.comparisons.comparison_page import comparison_page
from stepwise_jax.report.page import rendering
from stepwise_jax.report.paper_section import paper_blocks
from stepwise_jax.report.predictions_section import predictions_blocks
from stepwise_jax.report.series import group_series
from stepwise_jax.report.sweep_page import sweep_page
from stepwise_jax.workdir.json_files import write_json
from stepwise_jax.workdir.predictions import Predictions, most_confused, read_predictions
from stepwise_jax.workdir.record_file import RunRecords, read_records
from stepwise_jax.workdir.runs import read_runs


def headings(blocks) -> list[str]:
    return [block.text for block in blocks if isinstance(block, Heading)]


def after(blocks: tuple[Block, ...] | list[Block], text: str, kind: type) -> Block:
    """The first block of a kind after a heading."""
    index = next(i for i, block in enumerate(blocks) if isinstance(block, Heading) and block.text == text)
    return next(block for block in blocks[index:] if isinstance(block, kind))


def random_predictions(classes: int, count: int = 2000) -> Predictions:
    random = np.random.default_rng(1)
    labels = random.integers(0, classes, count)
    predicted = np.where(random.random(count) < 0.6, labels, random.integers(0, classes, count))
    return Predictions(labels, predicted, tuple(f"class {i}" for i in range(classes)), ())


def test_confusions_and_accuracies_are_counted():
    found = random_predictions(4)
    pairs = list(zip(found.labels.tolist(), found.predicted.tolist(), strict=True))
    counts = [[pairs.count((i, j)) for j in range(4)] for i in range(4)]
    assert found.confusion_matrix().tolist() == counts
    assert found.class_accuracy().tolist() == pytest.approx([counts[i][i] / sum(counts[i]) for i in range(4)])
    wrong = sorted((-counts[i][j], i, j) for i in range(4) for j in range(4) if i != j)
    assert most_confused(found, 3) == [(i, j, -times) for times, i, j in wrong[:3]]


def test_each_class_is_listed_with_its_most_common_mistake():
    labels, predicted = np.array([0, 0, 0, 0, 2]), np.array([0, 1, 2, 2, 2])
    blocks = predictions_blocks(Predictions(labels, predicted, ("cat", "dog", "bird"), ()), 2, "")
    table = after(blocks, "Accuracy by class", Table)
    assert isinstance(table, Table)
    assert table.rows == (
        ("cat", "25.00 %", "4", "1", "bird (2)"),
        ("dog", "–", "0", "0", "–"),
        ("bird", "100.00 %", "1", "1", "–"),
    )


def test_a_class_without_images_has_no_accuracy():
    found = Predictions(np.array([0, 0, 2]), np.array([0, 1, 2]), ("a", "b", "c"), ())
    np.testing.assert_array_equal(found.class_accuracy(), [0.5, np.nan, 1.0])


def test_few_classes_are_drawn_and_many_are_listed():
    few, many = (predictions_blocks(random_predictions(count), 2, "") for count in (5, 40))
    assert [type(block) for block in few] == [Heading, Paragraph, Picture, Table, Heading, Paragraph, Picture]
    assert [type(block) for block in many] == [Heading, Paragraph, Picture, Table, Heading, Paragraph, Table]
    ends, confusions = (block for block in many if isinstance(block, Table))
    shares = [float(row[1].removesuffix(" %")) for row in ends.rows]
    assert len(shares) == 20
    assert shares == sorted(shares)
    assert len(confusions.rows) == 20


def test_the_page_of_a_run_shows_its_predictions_and_images(tmp_path):
    folder = make_run(tmp_path / "run")
    make_predictions(folder, wrong=[3, 4])
    blocks = report.runs_page(read_runs([folder]))
    assert {"Accuracy by class", "Confusions", "Test images", "Noise scale and accuracy"} <= set(headings(blocks))
    wrong, right = (after(blocks, title, ImageGrid) for title in ("Wrong predictions", "Test images"))
    assert isinstance(wrong, ImageGrid)
    assert isinstance(right, ImageGrid)
    assert [caption for _, caption in (*wrong.items, *right.items)] == [
        "✗ cat, 70 %; it is dog (image 3)",
        "✗ dog, 70 %; it is cat (image 4)",
        "✓ dog, 70 % (image 5)",
        "✓ cat, 70 % (image 6)",
    ]
    listed = after(blocks, "Wrong predictions", Folded)
    assert isinstance(listed, Folded)
    (table,) = listed.blocks
    assert isinstance(table, Table)
    assert table.rows == (("image 3", "cat", "70 %", "dog"), ("image 4", "dog", "70 %", "cat"))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04nothing", b"not numpy"])
def test_damaged_predictions_are_reported(tmp_path, damage):
    (tmp_path / "predictions.npz").write_bytes(damage)
    with pytest.raises(InputError, match=r"predictions\.npz is damaged"):
        read_predictions(tmp_path)


def test_older_runs_have_classes_by_number(tmp_path):
    probabilities = np.array([[0.1, 0.9]])
    np.savez(tmp_path / "predictions.npz", ids=np.array(["a"]), labels=np.array([1]), probabilities=probabilities)
    found = read_predictions(tmp_path)
    assert found is not None
    assert found.classes == ("0", "1")
    assert found.samples == ()


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


def test_seeds_are_one_curve_with_its_range(tmp_path):
    folders = [make_run(tmp_path / "x" / f"seed{seed}", seed=seed, ahead=0.01 * seed) for seed in range(3)]
    other = make_run(tmp_path / "y", BASELINE)
    *seeds, alone = read_runs([*folders, other])
    first, second = group_series({"x": seeds, "none": [], "y": [alone]})
    assert (first.name, second.name, second.lowest) == ("x", "y", ())
    assert (first.color, second.color) == (0, 2)
    for row, low, high in zip(first.rows, first.lowest, first.highest, strict=True):
        assert row["top1"] == pytest.approx(low["top1"] + 0.01)
        assert high["top1"] == pytest.approx(low["top1"] + 0.02)


def test_a_mean_curve_ends_with_the_least_finished_seed(tmp_path):
    folders = [make_run(tmp_path / "x" / f"seed{seed}", seed=seed, epochs=3 + 2 * seed) for seed in range(2)]
    (curve,) = group_series({"x": read_runs(folders)})
    assert len(curve.rows) == 3
    assert not curve.finished


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Path:
    return make_comparison(tmp_path_factory.mktemp("compared") / "c")


def test_a_comparison_states_its_verdict(compared):
    blocks = comparison_page(compared)
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
    tables = [block for block in comparison_page(compared) if isinstance(block, Table)]
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
    text = rendering.to_markdown(comparison_page(root))
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
    comparison_page(compared)
    assert sorted(read) == sorted(path.parent.resolve() for path in compared.glob("*/*/records.jsonl"))


def test_a_comparison_is_reported_alone(compared, tmp_path):
    with pytest.raises(InputError, match="report it alone"):
        report.write_report([compared, compared / "baseline" / "seed0"], tmp_path / "out")
    empty = make_comparison(tmp_path / "c", seeds=(0,))
    for summary in empty.glob("*/*/summary.json"):
        summary.unlink()
    with pytest.raises(InputError, match="no finished run yet"):
        report.write_report([empty], tmp_path / "out")


def point(batch_size: str, by_seed: list[float], updates: int) -> dict[str, Any]:
    fields = {"plan.batch_size": batch_size, "plan.strategy": "baseline"}
    return {"point": fields, "top1": sum(by_seed) / 2, "by_seed": by_seed, "samples": 100, "updates": updates}


RESULTS = {
    "points": [point("16", [0.5, 0.7], 10), point("32", [0.4, 0.4], 5)],
    "best": {"plan.batch_size": "16", "plan.strategy": "baseline"},
    "test": {"top1": 0.625, "top5": 0.9},
    "failures": [],
}


def test_a_sweep_names_its_best_point(tmp_path):
    write_json(tmp_path / "sweep.json", {})
    write_json(tmp_path / "results.json", RESULTS)
    blocks = sweep_page(tmp_path)
    (verdict,) = (block for block in blocks if isinstance(block, Verdict))
    assert verdict.text == (
        "Of 2 points, batch size 16 scored best on held-out images, 60.00 %; on the test set it reached 62.50 % top-1."
    )
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert table.rows[0] == ("16", "60.00 %", "2", "100", "10")


@pytest.mark.parametrize("document", [[], {}, {**RESULTS, "points": []}, {**RESULTS, "test": 3}])
def test_a_damaged_sweep_is_reported(tmp_path, document):
    write_json(tmp_path / "results.json", document)
    with pytest.raises(InputError, match="is damaged"):
        sweep_page(tmp_path)
    with pytest.raises(InputError, match="has no results yet"):
        sweep_page(tmp_path / "none")


def test_a_folder_with_an_undecodable_name_has_a_report(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/run \xff"))
    make_run(folder, dataclasses.replace(STEPWISE, epochs_per_stage=1, decay_every=1))
    written = report.write_report([folder], tmp_path / "out")
    assert "run \ufffd" in written.read_text()


def test_a_run_with_any_name_is_drawn(tmp_path):
    folder = make_run(
        tmp_path / "_$\\frac$ a\x01b 猫", dataclasses.replace(STEPWISE, epochs_per_stage=1, decay_every=1)
    )
    (run,) = read_runs([folder])
    drawn = draw_seconds("seconds", {run.name: SECONDS, "other": SECONDS})
    assert xml.etree.ElementTree.fromstring(drawn.svg).tag.endswith("svg")


def test_html_and_markdown_escape_data():
    blocks = (Heading("<b>"), Verdict("<i>"), Notes(("<u>",)), Table(("<a>",), (("<s>",),)), ImageGrid(((b"", "<q>"),)))
    assert not {"<b>", "<i>", "<u>", "<a>", "<s>", "<q>"} & {
        word
        for word in ("<b>", "<i>", "<u>", "<a>", "<s>", "<q>")
        if word in rendering.to_html(blocks).split("</style>")[1]
    }
    assert r"**\<i\>**" in rendering.to_markdown(blocks)
