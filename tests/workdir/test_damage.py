"""Documents of a run that are valid JSON with wrong content: one sentence, never a traceback."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import launch
from stepwise_jax.errors import InputError
from stepwise_jax.workdir.folder import parse_config, read_config

DIGITS = str(Path(__file__).parents[2] / "configs" / "digits.py")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A run of one short stage, by the real entry point."""
    workdir = tmp_path_factory.mktemp("damage") / "run"
    words = ["--data.data_dir", str(data_dir), "--data.image_size", "8", "--model.width", "4", "--plan.fractions", "1"]
    words += ["--plan.batch_multipliers", "1", "--plan.batch_size", "64", "--plan.epochs_per_stage", "1"]
    assert launch.main(["train", DIGITS, "--workdir", str(workdir), *words]) == 0
    return workdir


DAMAGES: list[tuple[str, str, Any]] = [
    ("summary.json", "", {}),
    ("summary.json", "", []),
    ("summary.json", "top1", "x"),
    ("config.json", "stages", 3),
    ("config.json", "stages", [{}]),
    ("config.json", "experiment", []),
]


@pytest.mark.parametrize(("name", "key", "value"), DAMAGES)
def test_report_names_the_damaged_file(finished, tmp_path, capsys, name, key, value):
    path = finished / name
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), key: value} if key else value))
    try:
        assert launch.main(["report", str(finished), "--out", str(tmp_path)]) == 2
    finally:
        path.write_text(whole)
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"),
    [("stages", 3), ("stages", [{"name": "A"}]), ("strategy", {}), ("strategy", 1), ("experiment", [])],
)
def test_evaluate_says_what_is_wrong_with_config_json(finished, capsys, key, value):
    path = finished / "config.json"
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), key: value}))
    try:
        assert launch.main(["evaluate", str(finished)]) == 2
    finally:
        path.write_text(whole)
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_a_config_json_in_any_encoding_of_unicode_is_read(finished, tmp_path, encoding):
    whole = parse_config(read_config(finished))
    text = (finished / "config.json").read_text()
    (tmp_path / "config.json").write_text(text, encoding=encoding)
    assert parse_config(read_config(tmp_path)) == whole
    (tmp_path / "config.json").write_bytes(text.encode(encoding)[:-3])
    with pytest.raises(InputError, match=r"config\.json is damaged: it is not JSON"):
        read_config(tmp_path)


@pytest.mark.parametrize(("old", "new"), [('"stage": 1', '"stage": 9'), ('"stage": 1', '"stage": "x"')])
def test_report_names_damaged_records(finished, tmp_path, capsys, old, new):
    path = finished / "records.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace(old, new))
    try:
        assert launch.main(["report", str(finished), "--out", str(tmp_path)]) == 2
    finally:
        path.write_text(whole)
    assert "records.jsonl" in capsys.readouterr().err


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "command"),
    [
        *(("config.json", "evaluate"), ("preprocessing.json", "predict"), ("config.json", "report")),
        *(("records.jsonl", "report"), ("summary.json", "report"), ("predictions.npz", "report")),
    ],
)
def test_a_pipe_in_place_of_a_file_is_named_and_never_waited_for(finished, tmp_path, capsys, name, command):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / name).unlink()
    os.mkfifo(run / name)
    (tmp_path / "x.png").touch()
    more = {"report": ["--out", str(tmp_path / "out")], "predict": [str(tmp_path / "x.png")], "evaluate": []}
    assert launch.main([command, str(run), *more[command]]) == 2
    assert f"error: {run / name} " in capsys.readouterr().err


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_the_lock_does_not_stop_reading(finished, tmp_path):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "lock").unlink()
    os.mkfifo(run / "lock")
    assert launch.main(["evaluate", str(run)]) == 0
