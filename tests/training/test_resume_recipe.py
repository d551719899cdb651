"""A run in whose every step something is random, with averaged weights, is killed and resumes to the bit."""

import shutil
from pathlib import Path

from tests.training.test_resume import command, committed, finish, outcome, strike

CONFIG = """
from flax import linen as nn

import stepwise_jax as sj


class DropoutNetwork(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        x = nn.relu(nn.Dense(32)(images.reshape(len(images), -1)))
        return nn.Dense(self.num_classes)(nn.Dropout(0.5, deterministic=not train)(x))


def get_config():
    return sj.ExperimentConfig(
        data=sj.DataConfig(augmentation=("crop:1", "mixup:0.4")),
        model=sj.ModelConfig(name=DropoutNetwork),
        optimizer=sj.OptimizerConfig(name="adamw", ema_decay=0.95),
    )
"""


FIELDS = {
    "plan.fractions": "0.5 1",
    "plan.batch_multipliers": "1 1",
    "plan.epochs_per_stage": "8",
    "plan.learning_rate": "0.01",
}
# Every epoch is 44 or 89 steps; the stages end after these.
STAGE_ENDS = (352, 1064)


def words(folder: Path, name: str, data_dir: Path, seconds: str) -> list[str]:
    changed = command(folder / name, data_dir, **FIELDS, **{"checkpoint.every_seconds": seconds})
    named = changed.index("--model.width")
    del changed[named : named + 4]
    return [str(folder / "mine.py") if word == "configs/digits.py" else word for word in changed]


def in_an_epoch(workdir: Path) -> list[int]:
    """The checkpoints within an epoch of the last stage."""
    return [step for step in committed(workdir) if step > STAGE_ENDS[0] and (step - STAGE_ENDS[0]) % 89]


def test_killed_with_mixup_dropout_averaged_weights_and_adamw(tmp_path, data_dir):
    (tmp_path / "mine.py").write_text(CONFIG)
    finish(words(tmp_path, "undisturbed", data_dir, "1e9"))
    killed = tmp_path / "killed"
    strike(words(tmp_path, "killed", data_dir, "0.02"), lambda: bool(in_an_epoch(killed)))
    last = in_an_epoch(killed)[-1]
    for later in [step for step in committed(killed) if step > last]:
        # As if the kill had come before it: it ends an epoch.
        shutil.rmtree(killed / "checkpoints" / str(later))
    again = finish(words(tmp_path, "killed", data_dir, "1e9"))
    assert f"resuming after {last} of {STAGE_ENDS[1]} updates" in again
    assert outcome(killed) == outcome(tmp_path / "undisturbed")
    assert "ema_loss" in outcome(killed)[1][-1]["metrics"]
