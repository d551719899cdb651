"""The commands as a user types them: their output, messages and exit statuses."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import launch
from stepwise_jax.data import datasets
from stepwise_jax.experiment.config import DataConfig

ROOT = Path(__file__).parents[2]
DIGITS, CIFAR100 = str(ROOT / "configs" / "digits.py"), str(ROOT / "configs" / "cifar100_resnet50.py")


@pytest.fixture(autouse=True)
def prepared_digits(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))


def fails(capsys, *words: str) -> str:
    """Runs a command that must fail with exit status 2, and returns its only line of output."""
    assert launch.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize("config", [DIGITS, CIFAR100])
def test_plan_json_is_the_papers_plan(capsys, monkeypatch, tmp_path, config):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing here"))
    assert launch.main(["plan", config, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    examples = 1437 if config == DIGITS else 50_000
    stages = document["stages"]
    assert [stage["name"] for stage in stages] == ["A", "B", "C", "D", "O"]
    assert [stage["examples"] for stage in stages] == [round(f * examples) for f in (0.2, 0.4, 0.6, 0.8, 1.0)]
    b, rate = stages[0]["batch_size"], stages[0]["learning_rate"]
    assert [stage["batch_size"] for stage in stages] == [b, 2 * b, 3 * b, 4 * b, b]
    assert [stage["learning_rate"] for stage in stages] == pytest.approx([rate, *[rate / 50] * 3, rate])
    assert all(stage["milestones"] == [stage["epochs"] // 2] for stage in stages)
    assert document["relative_samples"] == pytest.approx(0.6, abs=1e-3)
    assert document["relative_updates"] == pytest.approx(0.36, abs=0.01)
    keys = {"updates_per_epoch", "updates", "samples", "noise_scale", "noise_scale_exact", "fraction", "epochs"}
    assert all(keys <= stage.keys() for stage in stages + document["baseline"]["stages"])


def test_plan_prints_the_table_and_the_cost(capsys):
    assert launch.main(["plan", CIFAR100]) == 0
    out = capsys.readouterr().out
    for text in ("10,000", "2e-05", "3,000,000", "5,000,000", "74,940", "208,300", "60.0 %", "36.0 %"):
        assert text in out


@pytest.mark.parametrize(
    "command", ["plan", "train", "evaluate", "predict", "export", "report", "prepare", "import-weights", "bench"]
)
def test_every_command_has_help(capsys, command):
    with contextlib.suppress(SystemExit):
        assert launch.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: python launch.py {command}" in out
    if command in ("plan", "train"):
        for field in ("--plan.batch-size INT", "--data.root", "--checkpoint.every-seconds", "{eq9,eq9_recursive"):
            assert field in out


def test_help_of_a_config_shows_its_values(capsys):
    assert launch.main(["plan", DIGITS, "--help"]) == 0
    assert "(default: resnet_small)" in capsys.readouterr().out


def test_a_field_is_replaced_by_its_dotted_name(capsys):
    words = [
        "plan",
        DIGITS,
        "--json",
        "--plan.batch_size",
        "8",
        "--plan.fractions",
        "0.5",
        "1",
        "--plan.batch-multipliers",
    ]
    assert launch.main([*words, "1", "2"]) == 0
    assert [stage["batch_size"] for stage in json.loads(capsys.readouterr().out)["stages"]] == [8, 16]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan.batchsize", "8"], "did you mean --plan.batch_size"),
        (["--batch_size", "8"], "did you mean --plan.batch_size or --evaluation.batch_size"),
        (["--plan.batch_size", "eight"], "--plan.batch_size is 'eight': it must be a whole number"),
        (["--plan.batch_size=8.5"], "--plan.batch_size is '8.5': it must be a whole number"),
        (["--plan.fractions", "0.4", "0.2", "1"], "each above the one before"),
        (["--plan.fractions", "0.2", "0.4"], "end with 1"),
        (["--plan.milestones", "3", "10"], "plan.milestones is (3, 10): it must be below plan.epochs_per_stage, 10"),
        (["--plan.learning_rate_rule", "eq10"], "it must be one of 'eq9'"),
        (["--plan.strategy", "magic"], "it must be one of 'stepwise', 'baseline', 'single_set'"),
        (["--plan.batch_size", "500"], "batch_size of stage 1 (A) is 500: it must be at most 287"),
        (["--data.name", "digitz"], "digits"),
        (["--data.name", "image_folder"], "data.root"),
        (["--data.name", "image_folder", "--data.root", "/no/such/folder"], "/no/such/folder"),
        (["--seed", "-1"], "between 0 and 4294967295"),
        (["stray"], "stray"),
    ],
)
def test_bad_fields_get_one_sentence(capsys, words, message):
    assert message in fails(capsys, "plan", DIGITS, *words)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is neither a file nor a shipped configuration"),
        ("x = 1", "has no function get_config()"),
        ("def get_config(): return 3", "returned int, not an ExperimentConfig"),
        ("def get_config(): return undefined", "line 1: NameError"),
        ("def get_config(:", "SyntaxError"),
        ("raise SystemExit(0)", "does not run"),
        ("import no_such_module_at_all", "ModuleNotFoundError"),
        (
            "from stepwise_jax.experiment.config import PlanConfig\ndef get_config(): return PlanConfig(batch_size=0)",
            "at least 1",
        ),
    ],
)
def test_bad_configuration_files_get_one_sentence(capsys, tmp_path, content, message):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    assert message in fails(capsys, "plan", str(path))


@pytest.mark.parametrize(
    ("neighbour", "message"),
    [
        ("A = 1\nB = undefined\n", "does not run: line 2 of {}: NameError: name 'undefined' is not defined"),
        ("A = 1\n\ndef f(:\n", "does not run: line 3 of {}: SyntaxError"),
        ("import no_such_module_at_all", "does not run: line 1 of {}: ModuleNotFoundError"),
        (
            "from stepwise_jax import PlanConfig\n\nPLAN = PlanConfig(batch_size=0)",
            ": line 3 of {}: plan.batch_size is 0: it must be at least 1",
        ),
    ],
)
@pytest.mark.parametrize("folder", [".", "configs", None])
def test_an_error_in_a_neighbour_names_its_file_and_line(capsys, tmp_path, monkeypatch, folder, neighbour, message):
    monkeypatch.chdir(tmp_path)
    place = Path(folder or tmp_path / "elsewhere")
    place.mkdir(exist_ok=True)
    (place / "shared.py").write_text(neighbour)
    (place / "mine.py").write_text("\n\nfrom . import shared\n")
    assert message.format(place / "shared.py") in fails(capsys, "plan", str(place / "mine.py"))


def test_an_error_in_a_field_names_its_line(capsys, tmp_path):
    text = "from stepwise_jax import PlanConfig\n\ndef get_config():\n    return PlanConfig(batch_size=0)\n"
    (tmp_path / "mine.py").write_text(text)
    message = f"CONFIG {str(tmp_path / 'mine.py')!r}: line 4: plan.batch_size is 0: it must be at least 1"
    assert message in fails(capsys, "plan", str(tmp_path / "mine.py"))


def test_a_configuration_that_failed_is_not_imported_in_part(capsys, tmp_path):
    (tmp_path / "first.py").write_text("A = 1\nB = undefined\n")
    (tmp_path / "second.py").write_text("from . import first\n")
    for name in ("first", "second"):
        assert "NameError: name 'undefined'" in fails(capsys, "plan", str(tmp_path / f"{name}.py"))


def test_a_configuration_may_have_dataclasses_and_late_annotations(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from stepwise_jax.experiment.config import ExperimentConfig, PlanConfig\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Mine:\n"
        "    rate: float = 0.5\n"
        "def get_config() -> ExperimentConfig:\n"
        "    return ExperimentConfig(plan=PlanConfig(learning_rate=Mine().rate))\n"
    )
    assert launch.main(["plan", str(tmp_path / "mine.py"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["learning_rate"] == 0.5


def test_a_misspelt_configuration_gets_the_nearest(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert "did you mean configs/digits.py?" in fails(capsys, "plan", "configs/digit.py")


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


def test_a_cause_of_several_lines_is_shortened_to_one(capsys, tmp_path):
    (tmp_path / "two.py").write_text('raise RuntimeError("one\\ntwo")')
    assert "does not run: line 1: RuntimeError: one\n" in fails(capsys, "plan", str(tmp_path / "two.py"))


def test_a_workdir_without_a_name_is_an_error(capsys):
    with pytest.raises(SystemExit, match="2"):
        launch.main(["train", DIGITS, "--workdir", ""])
    assert "--workdir: it must be the name of a folder" in capsys.readouterr().err


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
    with pytest.raises(SystemExit, match="2"):
        launch.main(words)
    assert "is a URL: it must be a path on this machine" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_home_folder_in_every_path(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(Path(DIGITS).read_text())
    assert launch.main(["plan", "~/mine.py", "--json"]) == 0
    capsys.readouterr()
    assert f"there is no config.json in {tmp_path / 'run'}:" in fails(capsys, "evaluate", "~/run")
    assert f"there is no config.json in {tmp_path / 'run'}:" in fails(capsys, "report", "~/run", "--out", "~/pages")
    (tmp_path / "file").touch()
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    assert f"--workdir {tmp_path / 'file'} is a file" in fails(capsys, "train", DIGITS, "--workdir", "~/file")
    words = ["--model.initial_weights", "~/weights.pth"]
    assert "No such file" not in fails(capsys, "train", DIGITS, "--workdir", "~/run", *words)
    words = ["--data.name", "image_folder", "--data.root", "~/images"]
    (tmp_path / "images").mkdir()
    assert "there is no such folder" not in fails(capsys, "train", DIGITS, "--workdir", "~/run", *words)
    assert not (tmp_path / "~").exists()


def test_a_relative_path_in_a_folder_that_was_removed_is_an_error(capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit, match="2"):
        launch.main(["train", DIGITS, "--workdir", "run"])
    assert "run: the current folder has been removed" in capsys.readouterr().err.splitlines()[-1]


def test_bad_workdirs_are_errors(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file: it must be a folder" in fails(capsys, "train", DIGITS, "--workdir", str(tmp_path / "file"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    assert "not empty and holds no run" in fails(capsys, "train", DIGITS, "--workdir", str(tmp_path / "full"))
    assert "is no run" in fails(capsys, "evaluate", str(tmp_path / "full"))
    assert "is no run" in fails(capsys, "evaluate", str(tmp_path / "none"))
    fails(capsys, "report", str(tmp_path / "none"), "--out", str(tmp_path / "out"))


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
