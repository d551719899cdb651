"""JSON documents are sorted, readable, written whole or not at all, and read back as they were."""

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.workdir import files, json_files, record_file
from stepwise_jax.workdir.records import EventRecord
from tests.workdir.example_records import write


def test_json_documents_are_sorted_readable_and_read_back(tmp_path):
    path = tmp_path / "summary.json"
    json_files.write_json(path, {"b": [1, 2.5, None], "a": {"nan": float("nan"), "text": "ä"}, "c": (True,)})
    assert json_files.read_json(path) == {"a": {"nan": None, "text": "ä"}, "b": [1, 2.5, None], "c": [True]}
    assert path.read_text(encoding="utf-8").startswith('{\n  "a": {\n    "nan": null')


def test_a_path_that_is_no_text_is_read_back_as_it_was(tmp_path):
    path = tmp_path / "config.json"
    json_files.write_json(path, {"root": "photos/\udcff"})
    assert json_files.read_json(path) == {"root": "photos/\udcff"}
    write(tmp_path, EventRecord("start", "photos/\udcff"))
    assert record_file.read_records(tmp_path).events[0]["message"] == "photos/\udcff"


def test_a_write_that_fails_leaves_the_old_document(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    json_files.write_json(path, {"top1": 0.5})

    def fail(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        json_files.write_json(path, {"top1": 0.6})
    assert json_files.read_json(path) == {"top1": 0.5}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_json_that_is_missing_or_damaged_is_bad_input(tmp_path):
    with pytest.raises(InputError, match=r"there is no config\.json in"):
        json_files.read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_bytes(b'{"seed": \xff')
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        json_files.read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_bytes(100_000 * b"[")
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        json_files.read_json(tmp_path / "config.json")
