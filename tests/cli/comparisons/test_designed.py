"""A designed comparison from its plan to its report; the runs are made, not trained."""

import json
import re
from pathlib import Path

import pytest

import launch
from stepwise_jax.cli import study_commands
from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.report import report
from stepwise_jax.report.blocks import Heading, Paragraph
from stepwise_jax.report.comparisons.comparison_page import comparison_page
from stepwise_jax.studies import comparison_folder
from stepwise_jax.studies.results import read_results
from stepwise_jax.workdir import runs
from tests.cli.command_line import DIGITS, fails
from tests.cli.comparisons.made_training import make_training

SMALL = ["--data.image_size", "8", "--data.train_examples", "80", "--plan.epochs_per_stage", "1"]
SMALL += ["--plan.decay_every", "1", "--plan.fractions", "0.5", "1", "--plan.batch_multipliers", "1", "1"]
SMALL += ["--plan.batch_size", "16", "--plan.baseline_epochs", "3"]
NAMES = ["--strategies", "stepwise,baseline"]


@pytest.fixture
def trained(data_dir, monkeypatch):
    """Names of the runs in the order in which they were trained."""
    names = []
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    monkeypatch.setattr(study_commands, "run_unfinished", make_training(names))
    monkeypatch.setattr(report, "write_comparison", lambda results, out: out / "report.html")
    return names


def output_of(capsys, *words: str) -> str:
    status, captured = launch.main(words), capsys.readouterr()
    assert status == 0, captured.err
    return captured.out


def page_texts(root: Path) -> list[str]:
    """The headings and paragraphs of the comparison's page."""
    return [each.text for each in comparison_page(read_results(root)) if isinstance(each, Heading | Paragraph)]


def plan(capsys, path: Path, *words: str) -> str:
    return output_of(capsys, "compare", DIGITS, *NAMES, *SMALL, *words, "--plan-design", str(path))


def document_of(root: Path):
    return json.loads((root / "comparison.json").read_text())


def test_a_design_is_trained_as_it_says(capsys, tmp_path, trained):
    path, root = tmp_path / "d.toml", tmp_path / "compared"
    planned = plan(capsys, path, "--seeds", "2", "--looks", "1,2", "--margin", "3")
    assert "Without a pilot the standard deviation of the paired differences is not known" in planned
    assert trained == []
    words = ["compare", "--design", str(path), "--workdir", str(root)]
    first = output_of(capsys, *words)
    assert trained == ["stepwise, seed 0", "baseline, seed 0", "stepwise, seed 1", "baseline, seed 1"]
    assert "Designed beforehand" in first
    assert "a margin of ± 3 points, a look after 1 and 2 seeds" in first
    document = document_of(root)
    assert document["history"]["looks"] == [{"baseline": n, "stepwise": n} for n in (1, 2)]
    sha256 = document["design"]["sha256"]
    assert re.search(r"design ([0-9a-f]{12})", planned)[1] == sha256[:12]  # pyright: ignore
    for run in ("stepwise/seed0", "baseline/seed1"):
        assert json.loads((root / run / "design.json").read_text()) == {"sha256": sha256, "planned": True}
    assert any(sha256[:12] in text for text in page_texts(root))

    output_of(capsys, *words)
    assert len(trained) == 4
    assert document_of(root) == document


def test_each_run_is_read_once_for_the_terminal_and_the_report(capsys, tmp_path, trained, monkeypatch):
    read = []
    for module, name in ((runs, "read_records"), (comparison_folder, "read_correct")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda folder, own=original: read.append(folder) or own(folder))
    monkeypatch.setattr("stepwise_jax.report.figures._render", lambda draw, formats, theme: [b""] * len(formats))
    monkeypatch.setattr(report, "write_comparison", lambda results, out: f"{len(comparison_page(results))} blocks")
    shown = output_of(capsys, "compare", DIGITS, *NAMES, *SMALL, "--seeds", "1", "--workdir", str(tmp_path / "c"))
    assert re.search(r"report: \d\d blocks", shown)
    assert len(read) == len(trained) * 2 == 4


def test_a_design_that_was_edited_after_the_start_is_refused(capsys, tmp_path, trained):
    path, root = tmp_path / "d.toml", tmp_path / "compared"
    plan(capsys, path, "--seeds", "1", "--margin", "3")
    words = ["compare", "--design", str(path), "--workdir", str(root)]
    output_of(capsys, *words)
    before = (root / "comparison.json").read_bytes()
    path.write_text(path.read_text().replace("margin = 3.0", "margin = 4.0"))
    assert "the design was changed after the start" in (error := fails(capsys, *words))
    assert "(margin: 4.0 instead of 3.0)" in error
    assert (root / "comparison.json").read_bytes() == before
    assert len(trained) == 2


def test_what_is_added_to_a_design_is_marked(capsys, tmp_path, trained):
    path, root = tmp_path / "d.toml", tmp_path / "compared"
    plan(capsys, path, "--seeds", "1")
    output_of(capsys, "compare", "--design", str(path), "--workdir", str(root))
    more = ["compare", DIGITS, "--strategies", "stepwise,baseline,equal_samples", "--seeds", "2", *SMALL]
    added = output_of(capsys, *more, "--workdir", str(root))
    sentence = "Added after looking: strategies equal_samples; seeds 1."
    assert sentence in added
    assert any(text.startswith(sentence) for text in page_texts(root))
    assert json.loads((root / "equal_samples" / "seed0" / "design.json").read_text())["planned"] is False
    assert json.loads((root / "stepwise" / "seed1" / "design.json").read_text())["planned"] is False
    assert len(trained) == 6
    # The design itself can still be run, and changes nothing.
    assert sentence in output_of(capsys, "compare", "--design", str(path), "--workdir", str(root))
    assert len(trained) == 6


def test_a_comparison_without_a_design_marks_what_is_added_after_a_look(capsys, tmp_path, trained):
    words = ["compare", DIGITS, *SMALL, "--workdir", str(tmp_path / "compared"), *NAMES]
    assert "Added" not in output_of(capsys, *words, "--seeds", "1")
    assert "Added after looking: seeds 1." in output_of(capsys, *words, "--seeds", "2")
    design = tmp_path / "d.toml"
    plan(capsys, design)
    assert "started without a design" in fails(
        capsys, "compare", "--design", str(design), "--workdir", str(tmp_path / "compared")
    )
    other = fails(capsys, *words, "--seeds", "2", "--tune-trials", "3")
    assert "--tune-trials: 3 instead of 0" in other


RATES = (0.01, 0.02, 0.04)


def test_every_arm_is_tuned_alike_and_tuning_resumes(capsys, tmp_path, trained, monkeypatch):
    path, root = tmp_path / "d.toml", tmp_path / "compared"
    plan(capsys, path, "--seeds", "1", "--tune-trials", "3")
    words = ["compare", "--design", str(path), "--workdir", str(root)]
    train = study_commands.run_unfinished

    def stop_after_two(jobs, executor):
        train(jobs[:2], executor)
        raise InterruptedRunError("stopped")

    monkeypatch.setattr(study_commands, "run_unfinished", stop_after_two)
    assert launch.main(words) == 75
    monkeypatch.setattr(study_commands, "run_unfinished", train)
    shown = output_of(capsys, *words)
    tuning = [f"tuning of {name}, learning rate {rate}" for name in ("stepwise", "baseline") for rate in RATES]
    assert trained == [*tuning, "stepwise, seed 0", "baseline, seed 0"]
    assert "Each strategy has the best of 3 learning rates, by top-1 on 10 % held out" in shown

    tuned = document_of(root)["tuning"]["strategies"]
    for name, found in tuned.items():
        folders = {
            each["learning_rate"]: root / "tuning" / name / f"learning_rate={each['learning_rate']}"
            for each in found["trials"]
        }
        scores = {rate: json.loads((folder / "summary.json").read_text())["top1"] for rate, folder in folders.items()}
        assert [each["top1"] for each in found["trials"]] == list(scores.values())
        assert scores[found["learning_rate"]] == max(scores.values())
        run = json.loads((root / name / "seed0" / "config.json").read_text())["experiment"]
        assert run["plan"]["learning_rate"] == found["learning_rate"]
        assert run["data"]["validation_fraction"] == 0
        held_out = json.loads((folders[0.01] / "config.json").read_text())["experiment"]
        assert (held_out["data"]["validation_fraction"], held_out["seed"]) == (0.1, 2**32 - 1)
    assert "Tuning" in page_texts(root)

    more = ["compare", DIGITS, "--strategies", "stepwise,equal_samples", "--seeds", "1", *SMALL, "--workdir", str(root)]
    output_of(capsys, *more)
    added = [f"tuning of equal_samples, learning rate {rate}" for rate in RATES]
    assert trained[8:] == [*added, "equal_samples, seed 0"]


def test_a_pilot_says_what_a_design_shows(capsys, tmp_path, trained):
    root = tmp_path / "pilot"
    output_of(capsys, "compare", DIGITS, *NAMES, *SMALL, "--seeds", "2", "--workdir", str(root))
    shown = plan(
        capsys, tmp_path / "d.toml", "--seeds", "4", "--margin", "2", "--pilot", str(root), "--tune-trials", "3"
    )
    assert "shown by 4 seeds" in shown
    assert "over 2 seeds" in shown
    baseline = next(line.split() for line in shown.splitlines() if line.split()[:1] == ["baseline"])
    # Three epochs of 80 examples in batches of 16: four runs, and three of the tuning.
    assert baseline[-2] == f"{3 * (4 * 80 + 3 * 80):,}"
    assert all(re.fullmatch(r"[\d.]+", each) for each in baseline[1:3])


def test_only_the_named_streams_differ_between_the_seeds(capsys, tmp_path, trained):
    path, root = tmp_path / "d.toml", tmp_path / "compared"
    plan(capsys, path, "--seeds", "2", "--seed", "3", "--vary", "init", "--tune-trials", "3")
    assert 'vary = ["init"]' in path.read_text()
    shown = output_of(capsys, "compare", "--design", str(path), "--workdir", str(root))
    assert "What differs between the seeds: initial weights; held at seed 3: order of the examples, subsets." in shown
    seeds = [
        json.loads((root / folder / "config.json").read_text())["experiment"]
        for folder in ("stepwise/seed3", "stepwise/seed4", "tuning/stepwise/learning_rate=0.01")
    ]
    assert [(each["seed"], each["streams"]["init"]) for each in seeds] == [(3, 3), (3, 4), (3, 2**32 - 1)]
    # Another seed of the configuration would hold the other streams elsewhere.
    more = ["compare", DIGITS, *NAMES, *SMALL, "--workdir", str(root), "--seeds", "2", "--seed", "4"]
    assert "seed: 4 instead of 3" in fails(capsys, *more)
    assert "--vary: order instead of init" in fails(capsys, *more[:-1], "3", "--vary", "order")
