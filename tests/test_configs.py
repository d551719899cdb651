"""Every shipped experiment: its plan, and a shrunk run of it from end to end on images that the test makes."""

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
from conftest import Recorder, shrink
from PIL import Image

import models
from stepwise_jax import datasets, loop, records, stages
from stepwise_jax.command_line import load_config
from stepwise_jax.config import DataConfig

NAMES = sorted(path.stem for path in (Path(__file__).parents[1] / "configs").glob("[a-z]*.py"))


@pytest.fixture(scope="session")
def made_images(tmp_path_factory) -> DataConfig:
    """Two classes of coloured noise, 80 images of 9 x 7 pixels."""
    folder, generator = tmp_path_factory.mktemp("made"), np.random.default_rng(3)
    for index in range(80):
        label = "red" if index % 2 else "blue"
        (folder / label).mkdir(exist_ok=True)
        pixels = generator.integers(0, 128, (9, 7, 3))
        pixels[..., 0 if index % 2 else 2] += 127
        Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{index}.png")
    data_dir = tmp_path_factory.mktemp("prepared")
    return DataConfig(name="image_folder", root=str(folder), data_dir=str(data_dir), image_size=32)


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_says_how_to_run_it(name):
    path = Path(__file__).parents[1] / "configs" / f"{name}.py"
    config = load_config(str(path))
    assert config.model.name in models.names()
    document = importlib.import_module(f"configs.{name}").__doc__
    assert f"python launch.py train configs/{name}.py --workdir" in str(document)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("cifar100", "food101"))])
def test_it_is_the_papers_plan(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    examples = datasets.sizes(config.data).train
    planned = stages.make_plan(config.plan, config.optimizer, examples)
    assert [stage.batch_size for stage in planned] == [24, 48, 72, 96, 24]
    middle = 0.001 if name.startswith("food101") else 0.00002
    assert [stage.learning_rate for stage in planned] == pytest.approx([0.001, middle, middle, middle, 0.001])
    assert {(stage.epochs, stage.milestones, stage.momentum, stage.weight_decay) for stage in planned} == {
        (20, (10,), 0.9, 1e-4)
    }
    assert sum(stage.samples for stage in planned) == 60 * examples
    assert config.data.image_size == 224
    assert config.model.initial_weights is None


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_shrunk(name, made_images, tmp_path):
    full = importlib.import_module(f"configs.{name}").get_config()
    config = shrink(full, dataclasses.replace(made_images, normalisation=full.data.normalisation))
    sizes = datasets.sizes(config.data)
    network = models.build(
        config.model.name, num_classes=sizes.num_classes, small_images=True, width=8, blocks=(1,) * 4
    )
    planned = stages.make_plan(config.plan, config.optimizer, sizes.train)
    summary = loop.run(config, planned, network, tmp_path / "run", Recorder())
    assert len(summary["stages"]) == len(full.plan.fractions)
    epochs = records.read(tmp_path / "run").epochs
    assert len(epochs) == 2 * len(planned)
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
