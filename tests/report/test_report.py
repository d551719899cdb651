"""A report agrees with the records, and its bytes depend on nothing else."""

import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import BASELINE, EXAMPLES, STEPWISE, epoch_records, make_run

from stepwise_jax.errors import InputError, SaveError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.formatting import format_operations
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.report import report, run_section
from stepwise_jax.report.blocks import Folded, Paragraph, Table
from stepwise_jax.report.charts.curve_data import curves_document
from stepwise_jax.report.charts.panels import accuracy_limits, curve_panels
from stepwise_jax.report.configuration_section import configuration_blocks
from stepwise_jax.report.curves import draw_curves, epoch_ends, stage_boundaries, write_curves
from stepwise_jax.report.page import rendering
from stepwise_jax.report.series import group_series, run_series
from stepwise_jax.workdir.json_files import write_json
from stepwise_jax.workdir.record_file import RecordWriter
from stepwise_jax.workdir.records import EventRecord
from stepwise_jax.workdir.runs import Run, read_runs

ODD_NAME = "a <b>&`|_*[x](y) BODY TITLE"
FILES = ("report.md", "report.html", "curves.png", "curves.svg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def demo(folder) -> Path:
    return make_run(folder / "demo")


@pytest.fixture(scope="module")
def several(folder, demo) -> tuple[Run, ...]:
    runs = [demo, make_run(folder / "baseline", BASELINE, seed=1), make_run(folder / ODD_NAME, epochs=5)]
    return read_runs(runs)


def markdown(runs: Sequence[Run]) -> str:
    return rendering.to_markdown(report.runs_page(runs))


def cells(markdown: str, first: str) -> list[str]:
    """The cells of the table row that starts with `first`."""
    (line,) = re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", markdown, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


def test_a_run_is_reported_in_full(demo):
    text = markdown(read_runs([demo]))
    assert "demo reached top-1 86.00 %, top-5 93.00 % on the test set at the end of 5 stages and 20 epochs" in text
    assert "17,244 samples planned, 16,224 fed in 412 updates, 1 TFLOP." in text
    (run,) = read_runs([demo])
    tested = dataclasses.replace(run, summary={**(run.summary or {}), "test_images": 2000})
    assert "demo reached top-1 86.00 % ± 1.52 on 2,000 images, top-5" in run_section.run_verdict(tested)
    assert "res2net50\\_26w\\_4s on digits at 224×224 pixels in float32, seed 0, on 1 x cpu" in text
    assert cells(text, "B") == [
        *("80.00 %", "90.00 %", "40 %", "575", "48", "2e-05", "4", "2", "44", "2,300", "2,112", "0.00024"),
    ]
    assert cells(text, "waiting for input") == ["10.0", "5.0 %"]
    assert cells(text, "all") == ["200.0", "100.0 %"]
    assert "125 images/s while training; 7.69 % of that time was spent waiting for input." in text
    assert cells(text, "versions") == ["jax 0.10.2, numpy 2.4.0"]
    assert "A: train\\[:287\\], SHA-256 000000000000" in text
    assert cells(text, r"plan.learning\_rate\_rule") == ["eq9"]


def test_the_same_records_give_the_same_bytes(demo, tmp_path):
    shutil.copytree(demo, tmp_path / "elsewhere" / "demo")
    here = report.write_report([demo], tmp_path / "deep" / "here")
    there = report.write_report([tmp_path / "elsewhere" / "demo"], tmp_path / "there")
    assert here.name == "report.html"
    for name in FILES:
        assert here.with_name(name).read_bytes() == there.with_name(name).read_bytes(), name
    svg = xml.etree.ElementTree.fromstring(here.with_name("curves.svg").read_text())
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"


def test_several_runs_are_shown_side_by_side(several):
    text = markdown(several)
    assert "| plan.strategy | stepwise | baseline | stepwise |" in text
    assert "| seed | 0 | 1 | 0 |" in text
    assert text.index("| seed |") < text.index("| demo | 86.00 %") < text.index("## Curves")
    assert cells(text, "demo")[:6] == ["86.00 %", "93.00 %", "86.00 %", "20", "17,244", "16,224"]
    assert cells(text, "baseline")[:6] == ["76.67 %", "88.33 %", "76.67 %", "6", "8,622", "8,496"]
    odd = r"a \<b\>\&\`\|\_\*\[x\](y) BODY TITLE"
    assert f"Of 3 runs, demo scored the highest top-1, 86.00 %, and {odd} the lowest, 74.00 %." in text


def test_named_runs_that_differ_in_their_seed_are_curves_of_their_own(folder, tmp_path):
    runs = read_runs([make_run(tmp_path / name, BASELINE, seed) for name, seed in (("one", 3), ("two", 4))])
    assert [series.name for series in run_series(runs)] == ["one", "two"]
    table = run_section.runs_table(runs)
    assert table.header[:3] == ("run", "top-1", "seed")
    assert [row[:3] for row in table.rows] == [("one", "76.67 %", "3"), ("two", "76.67 %", "4")]
    assert table.colors == (0, 1)


def test_curves_hold_what_the_records_hold(demo, tmp_path):
    split = [make_run(tmp_path / str(seed), BASELINE, seed, ahead=0.01 * seed) for seed in range(2)]
    series = group_series({"x": read_runs(split), "y": read_runs([demo])})
    document = json.loads(curves_document(series, curve_panels(series), ["x", "y"]))
    mean, alone = document["lines"]
    top1 = [90 - 80 / (1 + epoch) for epoch in range(6)]
    assert mean["values"]["top1"] == pytest.approx([value + 0.5 for value in top1], abs=1e-3)
    assert mean["low"]["top1"] == pytest.approx(top1, abs=1e-3)
    assert mean["high"]["top1"] == pytest.approx([value + 1 for value in top1], abs=1e-3)
    assert "low" not in alone
    assert alone["stages"][1] == {"name": "B", "epoch": 8, "samples": 3168}
    assert (alone["epoch"], alone["samples"][-1]) == (list(range(1, 21)), 16224)
    assert [panel["fields"] for panel in document["panels"]][2] == ["test_loss", "train_loss"]


def test_two_classes_have_no_top5(tmp_path):
    run = make_run(tmp_path / "run")
    lines = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    for row in lines:
        if row["kind"] == "epoch":
            row["top5"] = None
            del row["metrics"]["top5"]
    (run / "records.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    summary = json.loads((run / "summary.json").read_text())
    write_json(run / "summary.json", {**summary, "top5": None})
    runs = read_runs([run])
    assert "top-5" not in run_section.run_verdict(*runs)
    assert "top-5" not in {*run_section.stages_table(*runs).header, *run_section.runs_table(runs).header}
    assert all("top5" not in panel.fields for panel in curve_panels(run_series(runs)))


def test_fields_that_are_not_as_by_default_come_first(demo):
    (run,) = read_runs([demo])
    own, others, origin = configuration_blocks(run)
    assert isinstance(own, Table)
    changed = {row[0]: row[1] for row in own.rows}
    assert changed == {"plan.decay_every": "2", "plan.epochs_per_stage": "4", "model.name": "res2net50_26w_4s"}
    assert isinstance(others, Folded)
    assert isinstance(origin, Folded)
    (table,) = others.blocks
    assert isinstance(table, Table)
    assert ("plan.batch_size", "24") in table.rows


def test_operations_have_units():
    assert [format_operations(count) for count in (6.53e10, 1e12, 3.2e15, 4e6)] == [
        *("65.3 GFLOP", "1 TFLOP", "3.2 PFLOP", "4 MFLOP"),
    ]


def test_an_unfinished_run_says_so(folder, tmp_path):
    run = make_run(folder / "stopped", epochs=5)
    (only,) = read_runs([run])
    sentence = run_section.run_verdict(only)
    assert sentence.startswith(
        "stopped is unfinished: 5 of 20 epochs are done, in stage B; top-1 74.00 %, top-5 87.00 % so far"
    )
    rows = run_section.stages_table(only).rows
    assert [row[1] for row in rows] == ["70.00 %", "–", "–", "–", "–"]
    assert run_section.time_table(only).rows[0] == ("training", "30.0", "60.0 %")


def test_epochs_without_a_score_are_skipped(folder):
    run = make_run(folder / "sparse", epochs=3)
    with RecordWriter(run) as writer:
        last = epoch_records(make_plan(STEPWISE, EXAMPLES, ExperimentConfig().optimizer))[3]
        writer.append(dataclasses.replace(last, top1=None, top5=None, test_loss=None))
    (only,) = read_runs([run])
    assert "top-1 63.33 %, top-5 81.67 % so far" in run_section.run_verdict(only)
    assert draw_curves(run_series([only])).png.startswith(b"\x89PNG")


def test_test_images_that_are_also_in_training_are_mentioned(folder, demo):
    run = make_run(folder / "shared", epochs=2)
    with RecordWriter(run) as writer:
        writer.append(EventRecord("duplicates", "3 of 639 test images are also in training"))
    found, none = read_runs([run, demo])
    (paragraph,) = run_section.shared_images_blocks(found)
    assert paragraph == Paragraph(
        "3 of 639 test images are also in training: they have the pixels of images that were trained on."
    )
    assert run_section.shared_images_blocks(none) == []


class Page(HTMLParser):
    """Collects tags, sources and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.anchors: list[str] = []
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.anchors += [value or "" for name, value in attrs if name == "id"]
        self.policy += dict(attrs).get("content") or "" if ("http-equiv", "Content-Security-Policy") in attrs else ""
        self.sources += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        if tag not in ("meta", "img", "source", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_no_other_file_and_escapes_names(several):
    page = Page(rendering.to_html(report.runs_page(several)))
    assert page.open == []
    links = [source for source in page.sources if source.startswith("#")]
    pictures = [source for source in page.sources if source not in links]
    # The curves, the time of all runs, and the noise scale of each of the three, light and dark.
    assert len(pictures) == 2 * (1 + 1 + 3)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in pictures)
    assert not {"link", "b"} & set(page.tags)
    assert {link.removeprefix("#") for link in links} <= set(page.anchors)
    assert "default-src 'none'" in page.policy
    assert any(ODD_NAME in words for words in page.words)


def test_markdown_escapes_names(several):
    assert r"a \<b\>\&\`\|\_\*\[x\](y) BODY TITLE is unfinished" in markdown(several)


def test_a_folder_that_is_not_a_run_is_rejected_before_anything_is_written(demo, tmp_path):
    (tmp_path / "empty").mkdir()
    for runs, message in (
        ([demo, tmp_path / "empty"], "no run"),
        ([tmp_path / "none"], "there is no folder"),
        ([], "at least one"),
    ):
        with pytest.raises(InputError, match=message):
            report.write_report(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_out_that_cannot_be_written_is_rejected(demo, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out .* cannot be written"):
        report.write_report([demo], tmp_path / "file")


def test_epochs_and_samples_are_counted_through_the_run(demo):
    (run,) = run_series(read_runs([demo]))
    assert stage_boundaries(run, "epoch") == [0, 4, 8, 12, 16, 20]
    assert stage_boundaries(run, "samples") == [0, 1056, 3168, 6336, 10560, 16224]
    assert epoch_ends(run, "epoch") == list(range(1, 21))
    assert epoch_ends(run, "samples")[3::4] == stage_boundaries(run, "samples")[1:]


def test_the_accuracy_axis_excludes_the_first_epochs_if_they_span_most_of_it():
    def limits(fractions: list[float]) -> list[float]:
        return [round(limit, 2) for limit in accuracy_limits(fractions)]

    assert limits([0.1 + 0.008 * epoch for epoch in range(100)]) == [6.04, 93.16]
    assert limits([0.1, 0.7, *([0.9] * 38), 0.98]) == [68.6, 99.4]
    assert limits([0.1, 0.2, *([0.9] * 38), 1.0]) == [5.5, 100.4]
    assert limits([0.99]) == [93.75, 99.25]
    assert limits([]) == [-5.0, 100.4]


def test_curves_can_be_drawn_into_a_run_of_one_epoch(folder):
    run = make_run(folder / "first", epochs=1)
    write_curves(run)
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "curves.svg").read_text().count("<svg") == 1


def test_curves_that_cannot_be_written_are_reported(tmp_path):
    run = make_run(tmp_path / "run", epochs=1)
    (run / "curves.svg").mkdir()
    with pytest.raises(
        SaveError, match=r"curves\.svg cannot be written \(Is a directory\)\. Training is finished and saved"
    ):
        write_curves(run)


def test_records_that_end_before_the_summary_are_damaged(tmp_path):
    run = make_run(tmp_path / "run")
    lines = (run / "records.jsonl").read_text().splitlines(keepends=True)
    (run / "records.jsonl").write_text("".join(lines[:-3]))
    with pytest.raises(InputError, match=r"records\.jsonl is damaged"):
        report.write_report([run], tmp_path / "report")
