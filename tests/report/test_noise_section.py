"""The sections about measured noise: of a run, and of the predictors that a comparison crosses."""

import dataclasses
import json
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest
from made_runs import STEPWISE, make_run

from stepwise_jax.cli.tables import print_noise
from stepwise_jax.errors import InputError
from stepwise_jax.formatting import format_estimate
from stepwise_jax.report.noise_section import draw_measured_noise, measured_noise_blocks, measured_noise_table
from stepwise_jax.report.page import rendering
from stepwise_jax.report.run_section import run_blocks
from stepwise_jax.workdir.record_file import RecordWriter, read_records
from stepwise_jax.workdir.records import NoiseRecord
from stepwise_jax.workdir.runs import read_runs

SIDES = [(1, "end"), *((stage, side) for stage in range(2, 6) for side in ("start", "end"))]


def noise_record(stage: int = 1, side: Any = "end", statistics: Any = "frozen", **fields: Any) -> NoiseRecord:
    record = NoiseRecord(
        stage=stage,
        stage_name="ABCDO"[stage - 1],
        side=side,
        statistics=statistics,
        microbatches=16,
        microbatch_size=24,
        trace=12.0 * stage,
        trace_interval=(10.0, 14.0 * stage),
        squared_norm=0.5,
        squared_norm_interval=(0.25, 0.75),
        b_simple=24.0,
        b_simple_interval=(16.0, 48.0),
        learning_rate=0.001,
        noise_scale=0.012 * stage,
        rate_over_batch=0.001 / 24,
        step_noise=0.012 * stage / 24,
        seconds=0.5,
    )
    return dataclasses.replace(record, **fields)


def add_noise(folder: Path, *records: NoiseRecord) -> Path:
    with RecordWriter(folder) as writer:
        for record in records:
            writer.append(record)
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    records = [noise_record(*place, statistics) for place in SIDES for statistics in ("frozen", "batch")]
    unknown = float("nan")
    records[-1] = dataclasses.replace(
        records[-1],
        squared_norm=-0.1,
        squared_norm_interval=(-0.4, 0.2),
        b_simple=unknown,
        b_simple_interval=(300.0, unknown),
    )
    return add_noise(make_run(tmp_path_factory.mktemp("noise") / "run"), *records)


def test_every_measurement_stands_beside_the_formulas(measured):
    (run,) = read_runs([measured])
    table = measured_noise_table(run.records.noise)
    assert len(table.rows) == 18
    assert (
        "B, start, frozen",
        "0.024",
        "4.17e-05",
        "0.001",
        "24 (10 to 28)",
        "0.5 (0.25 to 0.75)",
        "24 (16 to 48)",
    ) in (table.rows)
    assert ("not identified (above 300)", "-0.1 (-0.4 to 0.2)") in [row[:-3:-1] for row in table.rows]


def test_the_section_draws_the_formulas_against_the_measurement_and_says_what_it_cost(measured):
    (run,) = read_runs([measured])
    text = rendering.to_markdown(measured_noise_blocks(run, 2, ""))
    assert "## Gradient noise, measured" in text
    # 18 measurements of 16 microbatches of 24 images, half a second each; the run took 200 s.
    assert "Measuring saw 6,912 examples, 42.60 % of those trained on, in 9.0 s, 4.50 % of the run's time." in text
    picture = draw_measured_noise("noise", run.records.noise)
    assert picture is not None
    assert xml.etree.ElementTree.fromstring(picture.svg).tag.endswith("svg")
    assert [block for block in run_blocks(run) if getattr(block, "name", "") == "measured_noise"]


def test_a_run_that_measured_nothing_has_no_section(tmp_path):
    (run,) = read_runs([make_run(tmp_path / "run")])
    assert measured_noise_blocks(run, 2, "") == []


def test_noise_that_is_not_positive_is_not_drawn(tmp_path):
    zero = add_noise(make_run(tmp_path / "run", STEPWISE), noise_record(trace=0.0, step_noise=0.0))
    (run,) = read_runs([zero])
    assert draw_measured_noise("noise", run.records.noise) is None
    assert len(measured_noise_blocks(run, 2, "")) == 5


def test_a_finished_run_prints_a_line_for_each_stage(measured, capsys):
    print_noise(read_records(measured).noise)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + 5
    assert lines[3].split() == ["A", "0.012", "4.17e-05", "0.0005", "12", "0.5", "24", "(16", "to", "48)"]
    assert lines[-1].rstrip().endswith("not identified (above 300)")
    print_noise(())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((24.0, 16.0, 48.0), "24 (16 to 48)"),
        ((24.0, 16.0, None), "24 (above 16)"),
        ((None, 16.0, None), "not identified (above 16)"),
        ((None, None, None), "not identified"),
    ],
)
def test_an_estimate_in_words(estimate, text):
    assert format_estimate(*estimate) == text


def test_a_measurement_that_is_damaged_is_named(tmp_path):
    folder = add_noise(make_run(tmp_path / "run"), noise_record())
    lines = (folder / "records.jsonl").read_text().splitlines()
    row = json.loads(lines[-1]) | {"trace_interval": 3}
    (folder / "records.jsonl").write_text("\n".join([*lines[:-1], json.dumps(row), ""]))
    with pytest.raises(InputError, match=r"records\.jsonl is damaged"):
        read_runs([folder])
