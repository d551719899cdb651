"""Reports of runs whose names are not plain text."""

import dataclasses
import os
import xml.etree.ElementTree
from pathlib import Path

from made_runs import SECONDS, STEPWISE, make_run

from stepwise_jax.report import report
from stepwise_jax.report.blocks import Heading, ImageGrid, Notes, Table, Verdict
from stepwise_jax.report.charts.seconds import draw_seconds
from stepwise_jax.report.page import rendering
from stepwise_jax.workdir.runs import read_runs


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
