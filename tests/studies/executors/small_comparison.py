"""A comparison of three short runs, and the states that it ends with where nothing disturbs it."""

import json
from pathlib import Path

import pytest

import launch

ROOT = Path(__file__).parents[3]
RUNS = ("stepwise/seed0", "baseline/seed0", "cosine/seed0")
_EPOCHS = ("epochs_per_stage", "decay_every", "baseline_epochs", "baseline_decay_every")
RUN_WORDS = ["--data.image_size", "8", "--model.width", "4", "--model.blocks", "1", "--data.train_examples", "160"]
RUN_WORDS += ["--plan.fractions", "0.5", "1", "--plan.batch_multipliers", "1", "1", "--plan.batch_size", "16"]
RUN_WORDS += [word for name in _EPOCHS for word in (f"--plan.{name}", "60")]
RUN_WORDS += ["--evaluation.batch_size", "180", "--evaluation.every_epochs", "2"]
WORDS = ["compare", str(ROOT / "configs" / "digits.py"), "--seeds", "1", "--strategies", "stepwise,baseline,cosine"]
WORDS += RUN_WORDS


def states(root: Path) -> dict[str, str]:
    """The hash of the final state of each run."""
    return {run: json.loads((root / run / "summary.json").read_text())["state_sha256"] for run in RUNS}


@pytest.fixture
def undisturbed(once, prepared_digits) -> dict[str, str]:
    """The final states of the comparison on this machine."""

    def train(folder: Path) -> dict[str, str]:
        assert launch.main([*WORDS, "--workdir", str(folder / "compared")]) == 0
        return states(folder / "compared")

    return once("undisturbed-comparison", train)


def epochs_of(folder: Path) -> int:
    """The number of epochs that a run has recorded."""
    records = folder / "records.jsonl"
    return records.read_text().count('"epoch"') if records.exists() else 0
