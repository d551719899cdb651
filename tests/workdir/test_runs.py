"""Folders of runs are read by name, once, and those that hold no run are bad input."""

from pathlib import Path

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.workdir import json_files
from stepwise_jax.workdir.records import EventRecord
from stepwise_jax.workdir.runs import read_runs
from tests.workdir.example_records import epoch_record, write


def make_run(folder: Path) -> Path:
    write(folder, epoch_record())
    planned = ("fraction", "examples", "batch_size", "learning_rate", "epochs", "updates", "samples", "noise_scale")
    stages = [{"name": name, **dict.fromkeys(planned, 1)} for name in "ABCDO"]
    json_files.write_json(folder / "config.json", {"experiment": {}, "stages": stages})
    return folder


def test_runs_are_named_apart_and_read_once(tmp_path):
    folders = [make_run(tmp_path / name) for name in ("a/run", "b/run", "c")]
    runs = read_runs([*folders, folders[0], tmp_path / "a" / ".." / "c"])
    assert [run.name for run in runs] == ["a/run", "b/run", f"{tmp_path.name}/c"]
    assert [run.name for run in read_runs(folders[1:])] == ["run", "c"]
    assert runs[0].summary is None
    assert [stage["name"] for stage in runs[0].stages] == list("ABCDO")


def test_a_folder_that_is_no_run_or_has_no_epoch_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"there is no config\.json in .*: it is no run"):
        read_runs([tmp_path])
    json_files.write_json(tmp_path / "config.json", [])
    with pytest.raises(InputError, match="does not describe a run"):
        read_runs([tmp_path])
    json_files.write_json(tmp_path / "config.json", {"experiment": {}, "stages": []})
    write(tmp_path, EventRecord("start", ""))
    with pytest.raises(InputError, match="no finished epoch"):
        read_runs([tmp_path])
