"""A short run of the tiny network on the digits, and damage to its folder."""

import json
from pathlib import Path

from conftest import TinyNet

from stepwise_jax.data import dataset, datasets
from stepwise_jax.experiment.config import CheckpointConfig, DataConfig, EvaluationConfig, ExperimentConfig, PlanConfig
from stepwise_jax.plans import planning
from stepwise_jax.training import loop


def config(data_dir: Path) -> ExperimentConfig:
    return ExperimentConfig(
        data=DataConfig(name="digits", data_dir=str(data_dir), image_size=16, normalisation="dataset"),
        plan=PlanConfig(
            fractions=(0.2, 1.0),
            batch_multipliers=(1, 1),
            learning_rate_rule="constant",
            batch_size=32,
            learning_rate=0.01,
            epochs_per_stage=1,
            decay_every=1,
        ),
        evaluation=EvaluationConfig(batch_size=100),
        checkpoint=CheckpointConfig(every_seconds=1e9),
    )


def train(experiment: ExperimentConfig, folder: Path) -> Path:
    planned = planning.make_plan(experiment.plan, datasets.sizes(experiment.data).train, experiment.optimizer)
    loop.run(experiment, planned, TinyNet(), folder)
    return folder


def examples(data_dir: Path, split: str) -> dataset.Examples:
    data = config(data_dir).data
    return datasets.load(datasets.open_dataset(data), split, data.image_size, lambda *_: None)


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def damage_newest(folder: Path) -> None:
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def make_old(folder: Path) -> None:
    (folder / "preprocessing.json").unlink()


def damage_signature(**changes: object):
    def damage(folder: Path) -> None:
        path = folder / "preprocessing.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage
