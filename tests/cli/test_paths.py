"""Paths as a user types them: URLs, tildes, empty names, and folders that are something else."""

import os
import pwd
from pathlib import Path

import pytest

import launch
from tests.cli.command_line import DIGITS, fails

pytestmark = pytest.mark.usefixtures("prepared_digits")


def test_a_workdir_without_a_name_is_an_error(capsys):
    assert "--workdir: it must be the name of a folder" in fails(capsys, "train", DIGITS, "--workdir", "")


@pytest.mark.parametrize(
    "words",
    [
        ["train", DIGITS, "--workdir", "gs://bucket/run"],
        ["compare", DIGITS, "--workdir", "s3://bucket/run"],
        ["evaluate", "file:///run"],
        ["report", "run", "--out", "gs://bucket"],
        ["export", "run", "--out", "gs://bucket/x.stablehlo"],
    ],
)
def test_a_url_is_no_path(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    assert "is a URL: it must be a path on this machine" in fails(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_home_folder_in_every_path(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(Path(DIGITS).read_text())
    assert launch.main(["plan", "~/mine.py", "--json"]) == 0
    capsys.readouterr()
    assert f"there is no folder {tmp_path / 'run'}" in fails(capsys, "evaluate", "~/run")
    assert f"there is no folder {tmp_path / 'run'}" in fails(capsys, "report", "~/run", "--out", "~/pages")
    (tmp_path / "file").touch()
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    assert f"--workdir {tmp_path / 'file'} is a file" in fails(capsys, "train", DIGITS, "--workdir", "~/file")
    words = ["--model.initial_weights", "~/weights.pth"]
    assert "No such file" not in fails(capsys, "train", DIGITS, "--workdir", "~/run", *words)
    words = ["--data.name", "image_folder", "--data.root", "~/images"]
    (tmp_path / "images").mkdir()
    assert "there is no such folder" not in fails(capsys, "train", DIGITS, "--workdir", "~/run", *words)
    (tmp_path / "x.png").touch()
    assert f"there is no folder {tmp_path / 'run'}" in fails(capsys, "predict", "~/run", "~/x.png")
    assert launch.main(["prepare", "digits", "--data-dir", "~/data"]) == 0
    assert (tmp_path / "data" / "stepwise_digits").is_dir()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("command", [["prepare", "digits"], ["plan", DIGITS, "--data.duplicates", "drop"]])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("gs://bucket/data", "gs://bucket/data is a URL: it must be a path on this machine"),
        ("~nobody-here/x", "~nobody-here/x: the home folder that ~ stands for is unknown"),
    ],
)
def test_a_place_in_the_environment_that_is_none_makes_no_folder(
    capsys, tmp_path, monkeypatch, command, place, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", place)
    assert fails(capsys, *command) == f"error: TFDS_DATA_DIR: {message}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "digits", "--data-dir", "~nobody-here/x"], "data.data_dir: ~nobody-here/x: the home folder that"),
        (["prepare", "cifar10", "--from", "~nobody-here/x"], "data.root: ~nobody-here/x: the home folder that ~ st"),
        (["prepare", "image_folder", "--from", "~nobody-here/x"], "data.root: ~nobody-here/x: the home folder that"),
        (["prepare", "digits", "--data-dir", ""], "data.data_dir is empty: it must be a path"),
        (
            ["plan", DIGITS, "--data.duplicates", "drop", "--data.data_dir="],
            "data.data_dir is empty: it must be a path",
        ),
        (["prepare", "image_folder", "--from", ""], "data.root is not set: image_folder needs the folder of the"),
        (["plan", DIGITS, "--data.name", "image_folder", "--data.root="], "data.root is not set: image_folder needs"),
    ],
)
def test_an_unknown_home_folder_and_an_empty_path_get_one_sentence(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert fails(capsys, *words).startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["plan", "prepare", "train"])
def test_an_account_without_a_home_folder_gets_one_sentence(capsys, tmp_path, monkeypatch, command):
    for name in ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    words = {
        "plan": [DIGITS, "--data.duplicates", "drop"],
        "prepare": ["digits"],
        "train": [DIGITS, "--workdir", "run"],
    }
    sentence = "data.data_dir: ~/tensorflow_datasets: the home folder that ~ stands for is unknown"
    assert f"error: {sentence}" in fails(capsys, command, *words[command])


@pytest.mark.parametrize("words", [["evaluate", ""], ["report", "run", "--out", ""], ["predict", "", "x.png"]])
def test_an_empty_path_is_not_the_current_folder(capsys, words):
    assert "it must be a path, and is empty" in fails(capsys, *words)


@pytest.mark.timeout(60)
def test_pipes_and_devices_are_never_read(capsys, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (str(tmp_path / "pipe"), "/dev/zero"):
        for name in ("cifar10", "food101"):
            words = ["prepare", name, "--from", place, "--data-dir", str(tmp_path / "data")]
            assert f"--from {place!r} is neither a file nor a folder: give " in fails(capsys, *words)
        words = ["--workdir", str(tmp_path / "run"), "--model.initial_weights", place]
        assert f"model.initial_weights: {place} is a pipe or a device" in fails(capsys, "train", DIGITS, *words)
        assert f"{place} is not a file" in fails(capsys, "import-weights", "resnet18", place)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_relative_path_in_a_folder_that_was_removed_is_an_error(capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert "run: the current folder has been removed" in fails(capsys, "train", DIGITS, "--workdir", "run")


def test_bad_workdirs_are_errors(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file: it must be a folder" in fails(capsys, "train", DIGITS, "--workdir", str(tmp_path / "file"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    assert "not empty and holds no run" in fails(capsys, "train", DIGITS, "--workdir", str(tmp_path / "full"))
    assert "is no run" in fails(capsys, "evaluate", str(tmp_path / "full"))
    assert "there is no folder" in fails(capsys, "evaluate", str(tmp_path / "none"))
    fails(capsys, "report", str(tmp_path / "none"), "--out", str(tmp_path / "out"))
