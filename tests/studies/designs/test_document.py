"""The file of a design: written, read, hashed, and refused where it is none."""

import dataclasses
import re

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.studies.comparison import Protocol
from stepwise_jax.studies.designs import document
from stepwise_jax.studies.designs.document import Design
from tests.studies.example_comparison import EXPERIMENT, ROWS, compared, own

FIELDS = ["--plan.fractions", "0.5", "1", "--data.root", "/here", "--plan.batch-size=8"]


def design_of(*names: str, fields: list[str] = FIELDS, **protocol) -> Design:
    two = dataclasses.replace(compared(*(names or ("stepwise", "baseline"))), protocol=Protocol(**protocol))
    own_fields = {arm.name: ROWS.get(arm.name) or override_fields(EXPERIMENT, arm.changes) for arm in two.arms}
    return document.make_design(two, own_fields, fields)


def test_a_design_is_read_back(tmp_path):
    design = design_of("stepwise", "short", margin=1, looks=(1, 2), tune_trials=5)
    document.write_design(tmp_path / "d.toml", design)
    read = document.read_design(tmp_path / "d.toml")
    assert read == design
    assert read.sha256 == design.sha256
    assert read.protocol() == Protocol(1.0, (1, 2), 5)
    assert [arm.name for arm in read.arms()] == ["stepwise", "short"]
    assert read.arms()[0].changes == {"plan.strategy": "stepwise", "plan.learning_rate_rule": "eq9"}
    # Where the data lies is no part of a design.
    assert read.field_arguments() == ("--plan.fractions", "0.5", "1", "--plan.batch_size", "8")
    assert read.document["arms"][1]["differs"] == {"plan.epochs_per_stage": 5}


def test_without_looks_the_last_seed_is_the_only_one():
    assert design_of().protocol() == Protocol(1.0, (2,), 0)


def test_the_hash_is_of_the_content(tmp_path):
    path = tmp_path / "d.toml"
    document.write_design(path, design_of(margin=1))
    text = path.read_text()
    path.write_text("# another comment\n" + re.sub(r"margin = 1\.0\n(.*\n)", r"\1margin   =  1\n", text))
    assert path.read_text() != text
    assert document.read_design(path).sha256 == design_of(margin=1).sha256
    assert design_of(margin=1).sha256 != design_of(margin=2).sha256


def test_differences_are_named():
    before, now = design_of(margin=1), design_of("baseline", "stepwise", margin=2, fields=[])
    found = document.design_differences(before, now)
    assert "margin: 2.0 instead of 1.0" in found
    assert "order of arms: ['baseline', 'stepwise'] instead of ['stepwise', 'baseline']" in found
    assert "fields.plan.batch_size: nothing instead of ['8']" in found
    assert document.design_differences(before, before) == []


def test_functions_are_known_by_their_content():
    fixed = document.fixed_fields(override_fields(EXPERIMENT, {"plan.strategy": own}))
    assert re.fullmatch(r"own \([0-9a-f]{12}\)", fixed["plan.strategy"])


def test_a_design_is_never_overwritten(tmp_path):
    document.write_design(tmp_path / "d.toml", design_of())
    with pytest.raises(InputError, match="exists: a design is never overwritten"):
        document.write_design(tmp_path / "d.toml", design_of(margin=1))
    with pytest.raises(InputError, match="cannot be written: No such file"):
        document.write_design(tmp_path / "no" / "d.toml", design_of())


def test_files_that_are_no_design_are_refused(tmp_path):
    path = tmp_path / "d.toml"
    with pytest.raises(InputError, match="cannot be read: No such file"):
        document.read_design(path)
    for content, message in ((b"a = ", "is not TOML"), (b"\xff", "is not TOML"), (b"a = 1", "its entry 'config'")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            document.read_design(path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("config", 3),
        ("metric", "top5"),
        ("margin", 0.0),
        ("margin", "one"),
        ("seeds", []),
        ("seeds", [1, 0]),
        ("seeds", ["one"]),
        ("looks", [1]),
        ("looks", [0, 2]),
        ("looks", []),
        ("stopping", "when it suits"),
        ("tune_trials", -1),
        ("tune_trials", True),
        ("arms", []),
        ("arms", [{"name": "a"}, {"name": "b"}]),
        ("fields", {"plan.batch_size": 8}),
        ("experiment", None),
        ("colour", "blue"),
    ],
)
def test_an_entry_that_is_not_valid_is_named(entry, value):
    with pytest.raises(InputError, match=f"d.toml is no design: its entry '{entry}' is missing or not valid"):
        document.check_design({**design_of(margin=1).document, entry: value}, "d.toml")
