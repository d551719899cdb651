"""The commands as a user types them: their output, messages and exit statuses."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import launch
from stepwise_jax.data import datasets
from stepwise_jax.experiment.config import DataConfig
from tests.cli.command_line import DIGITS, fails

pytestmark = pytest.mark.usefixtures("prepared_digits")


@pytest.mark.parametrize(
    "command", ["plan", "train", "evaluate", "predict", "export", "report", "prepare", "import-weights", "bench"]
)
def test_every_command_has_help(capsys, command):
    with contextlib.suppress(SystemExit):
        assert launch.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: python launch.py {command}" in out
    if command in ("plan", "train"):
        for field in ("--plan.batch_size INT", "--data.root", "--checkpoint.every_seconds", "{eq9,eq9_recursive"):
            assert field in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.name", "resnet51"], "resnet50"),
        (["--model.name", "resnet18", "--model.small_images", "False"], "16x16 pixels are too few"),
        (["--model.initial_weights", "none.pth"], "model.initial_weights: none.pth cannot be read (No such file"),
    ],
)
def test_bad_networks_are_errors_before_the_workdir_is_made(capsys, tmp_path, words, message):
    assert message in fails(capsys, "train", DIGITS, "--workdir", str(tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


def test_unknown_options_are_errors(capsys, tmp_path):
    assert "--jsn is no option of evaluate" in fails(capsys, "evaluate", str(tmp_path), "--jsn")


def test_train_evaluate_report_of_a_folder_of_images(capsys, tmp_path):
    """All steps of a user with their own images, with the smallest network."""
    generator = np.random.default_rng(0)
    for index in range(60):
        folder = tmp_path / "photos" / ("dark" if index % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 100, (12, 14, 3)) + (0 if index % 2 else 155)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:02}.png")
    workdir = tmp_path / "run"
    words = ["--data.name", "image_folder", "--data.root", str(tmp_path / "photos"), "--data.image_size", "8"]
    words += ["--data.data_dir", str(tmp_path / "prepared"), "--model.width", "4", "--plan.fractions", "0.5", "1"]
    words += ["--plan.batch_multipliers", "1", "2", "--plan.batch_size", "6", "--plan.epochs_per_stage", "3"]
    assert launch.main(["train", DIGITS, "--workdir", str(workdir), *words]) == 0
    out, err = capsys.readouterr()
    assert "top-1" in out
    assert "stage 2 of 2" in err
    assert (workdir / "curves.png").stat().st_size > 10_000
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["top1"] == 1.0

    assert launch.main(["evaluate", str(workdir), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["top1"], scores["updates"]) == (1.0, summary["updates"])

    assert launch.main(["report", str(workdir), "--out", str(tmp_path / "report")]) == 0
    assert {path.name for path in (tmp_path / "report").iterdir()} >= {
        "report.md",
        "report.html",
        "curves.png",
        "curves.svg",
    }

    capsys.readouterr()
    shutil.rmtree(tmp_path / "photos")
    assert "photos" in fails(capsys, "train", DIGITS, "--workdir", str(workdir), *words)


def test_truncated_images_are_named_and_counted(capsys, tmp_path):
    for label in ("a", "b"):
        for index in range(5):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("RGB", (20, 20), (index, 0, 0)).save(tmp_path / label / f"{index}.jpg")
    broken = tmp_path / "a" / "3.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    (tmp_path / "b" / "4.jpg").write_bytes(b"")
    message = fails_after_progress(
        capsys, "prepare", "image_folder", "--from", str(tmp_path), "--data-dir", str(tmp_path / "d")
    )
    assert "2" in message
    assert "3.jpg" in message
    assert "4.jpg" in message


def fails_after_progress(capsys, *words: str) -> str:
    """As `fails`, for a command that may show its progress first."""
    assert launch.main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    return lines[-1]


def test_prepare_prints_the_sizes_of_the_data_set(capsys, tmp_path):
    assert launch.main(["prepare", "digits", "--data-dir", str(tmp_path)]) == 0
    assert "1437 training and 360 test images, 10 classes" in capsys.readouterr().out
    assert datasets.open_dataset(DataConfig(data_dir=str(tmp_path))).class_names[:2] == ("0", "1")
