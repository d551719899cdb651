"""Every shipped configuration: its docstring, its plans, and a shrunk run from end to end on generated images."""

import dataclasses
import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import shrink
from PIL import Image

import models
from stepwise_jax.cli import networks
from stepwise_jax.data import datasets
from stepwise_jax.data.sources.catalog import PUBLISHED_SIZES
from stepwise_jax.experiment.config import DataConfig, ExperimentConfig
from stepwise_jax.experiment.config_files import load_config, load_rows
from stepwise_jax.experiment.paper import find_result
from stepwise_jax.functional.networks import build_network
from stepwise_jax.plans import planning
from stepwise_jax.plans.stage import Stage
from stepwise_jax.training import loop
from stepwise_jax.workdir import record_file

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "configs").glob("[a-z]*.py"))


# Data set, network, and whether it starts from ImageNet weights, as the paper's sections say.
EXPERIMENTS = {
    "cifar100_resnet50": ("cifar100", "resnet50", False),
    "cifar100_res2net50": ("cifar100", "res2net50_26w_4s", False),
    "cifar100_res2net50_v1b": ("cifar100", "res2net50_v1b_26w_4s", False),
    "cifar100_resnext50": ("cifar100", "resnext50_32x4d", False),
    "cifar100_res2next50": ("cifar100", "res2next50", False),
    "birdsnap_res2net50": ("birdsnap", "res2net50_26w_4s", False),
    "birdsnap_res2next50": ("birdsnap", "res2next50", False),
    "food101_res2net50": ("food101", "res2net50_26w_4s", False),
    "food101_res2net50_imagenet": ("food101", "res2net50_26w_4s", True),
    "food101_res2net50_imagenet_b12": ("food101", "res2net50_26w_4s", True),
    "food101_res2net50_imagenet_b16": ("food101", "res2net50_26w_4s", True),
    "food101_res2net50_imagenet_three_stages": ("food101", "res2net50_26w_4s", True),
    "face_mask_res2net50_b16": ("face_mask", "res2net50_26w_4s", True),
    "face_mask_res2net50_b24": ("face_mask", "res2net50_26w_4s", True),
    "figure1_resnet18": ("cifar100", "resnet18", False),
}

# 20, 40, 60, 80 and 100 % of the training images, to the nearest whole one.
CIFAR = (10_000, 20_000, 30_000, 40_000, 50_000)
BIRDS = (9_477, 18_954, 28_432, 37_909, 47_386)
FOOD = (15_150, 30_300, 45_450, 60_600, 75_750)
MASKS = (502, 1_004, 1_505, 2_007, 2_509)
EQ9 = (1e-3, 2e-5, 2e-5, 2e-5, 1e-3)
CONSTANT = (1e-3,) * 5
GROWING_24, GROWING_16 = (24, 48, 72, 96, 24), (16, 32, 48, 64, 16)


def staged(examples, batches, rates):
    return [(*stage, 20, (10,)) for stage in zip(examples, batches, rates, strict=True)]


def alone(examples, batch=24, rate=1e-3):
    return [(examples, batch, rate, 20, (10,))]


def baseline(examples, batch=24):
    return [(examples, batch, 1e-3, 100, (30, 60, 90))]


def sets_alone(examples):
    return {letter: alone(count) for letter, count in zip("ABCDO", examples, strict=True)}


_CIFAR_PAIR = {"baseline": baseline(50_000), "stepwise": staged(CIFAR, GROWING_24, EQ9)}
_BIRDS_PAIR = {"baseline": baseline(47_386), "stepwise": staged(BIRDS, GROWING_24, EQ9)}
_FOOD_PAIR = {"baseline": baseline(75_750), "stepwise": staged(FOOD, GROWING_24, CONSTANT)}

# M_i, b_i, lambda_i, epochs and drops of each stage of each row.
PLANS = {
    "cifar100_resnet50": _CIFAR_PAIR | sets_alone(CIFAR),
    "cifar100_res2net50": _CIFAR_PAIR,
    "cifar100_res2net50_v1b": _CIFAR_PAIR,
    "cifar100_resnext50": _CIFAR_PAIR,
    "cifar100_res2next50": _CIFAR_PAIR,
    "birdsnap_res2net50": _BIRDS_PAIR,
    "birdsnap_res2next50": _BIRDS_PAIR,
    "food101_res2net50": _FOOD_PAIR | sets_alone(FOOD),
    "food101_res2net50_imagenet": _FOOD_PAIR | sets_alone(FOOD),
    "food101_res2net50_imagenet_b12": {
        "baseline": baseline(75_750, 12),
        "stepwise": staged(FOOD, (12, 24, 36, 48, 12), CONSTANT),
    },
    "food101_res2net50_imagenet_b16": {
        "baseline": baseline(75_750, 16),
        "stepwise": staged(FOOD, GROWING_16, CONSTANT),
    },
    "food101_res2net50_imagenet_three_stages": {
        "baseline": [(75_750, 24, 1e-3, 60, (30,))],
        "stepwise": staged((15_150, 45_450, 75_750), (24, 48, 24), (1e-3,) * 3),
    },
    "face_mask_res2net50_b16": {
        "baseline": baseline(2_509, 16),
        "stepwise": staged(MASKS, GROWING_16, EQ9),
        "ends_5b": staged(MASKS, (16, 32, 48, 64, 80), EQ9),
    },
    "face_mask_res2net50_b24": {
        "baseline": baseline(2_509),
        "stepwise": staged(MASKS, GROWING_24, EQ9),
        "constant_b": staged(MASKS, (24,) * 5, EQ9),
        "constant_rate": staged(MASKS, GROWING_24, CONSTANT),
        "constant_rate_and_b": staged(MASKS, (24,) * 5, CONSTANT),
        "A-C-O": staged((502, 1_505, 2_509), (24, 48, 24), (1e-3, 1e-4 / 3, 1e-3)),
        "A-O": staged((502, 2_509), (24, 48), (1e-3, 1e-3)),
    },
    "figure1_resnet18": sets_alone(CIFAR)
    | {f"b{batch}": alone(10_000, batch) for batch in (12, 24, 48, 72, 96)}
    | {f"rate{rate}": alone(50_000, rate=rate) for rate in (0.1, 0.01, 0.001, 0.0001)},
}
ROWS = [(name, row) for name, rows in PLANS.items() for row in rows]

OWN_ROWS = {"masks_verdict": "face_mask_res2net50_b24"}
"""Files whose rows have the plans of another file's, on another network and with another learning rate."""


def file(name: str) -> str:
    return str(Path(__file__).parents[2] / "configs" / f"{name}.py")


def plan_of(config: ExperimentConfig):
    return planning.make_plan(config.plan, datasets.sizes(config.data).train, config.optimizer)


def test_each_row_is_written_down_here():
    assert {name for name in NAMES if load_rows(file(name))} == PLANS.keys() | OWN_ROWS.keys() | {"noise_predictors"}
    assert {name: list(load_rows(file(name))) for name in PLANS} == {name: list(rows) for name, rows in PLANS.items()}


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_a_row_is_the_papers_plan(name, row):
    config = load_config(f"{file(name)}:{row}")
    planned = plan_of(config)
    found = [(each.examples, each.batch_size, each.learning_rate, each.epochs, each.milestones) for each in planned]
    assert [(*each[:2], pytest.approx(each[2]), *each[3:]) for each in PLANS[name][row]] == found
    settings = {(each.decay_factor, each.momentum, each.weight_decay, each.epoch_rates) for each in planned}
    assert settings == {(0.1, 0.9, 1e-4, None)}
    weights = "weights/res2net50_26w_4s.safetensors" if EXPERIMENTS[name][2] else None
    assert (config.data.name, config.model.name, config.model.initial_weights) == (*EXPERIMENTS[name][:2], weights)
    assert (config.plan.carry, config.plan.batch_statistics) == ("state", "carried")
    assert (config.data.image_size, config.data.train_examples, config.data.validation_fraction) == (224, None, 0)
    assert (config.model.small_images, config.model.width, config.model.blocks) == (False, None, None)


@pytest.mark.parametrize(("name", "other"), OWN_ROWS.items())
def test_rows_have_the_plans_of_the_papers_table(name, other):
    ours, papers = load_rows(file(name)), load_rows(file(other))
    assert ours.keys() == papers.keys()
    for row, config in ours.items():
        rate = papers[row].plan.learning_rate
        assert dataclasses.replace(config.plan, learning_rate=rate) == papers[row].plan
    assert load_config(file(name)) == ours["stepwise"] == next(iter(ours.values()))


def test_the_rows_that_cross_the_predictors_travel_equally_far():
    rows = {
        name: planning.make_plan(config.plan, 10_000) for name, config in load_rows(file("noise_predictors")).items()
    }
    text = docstring("noise_predictors")
    for name, (first, last) in rows.items():
        assert [each.learning_rate * each.updates for each in (first, last)] == pytest.approx([83.2, 83.2])
        noise = first.noise_scale / rows["quarter"][0].noise_scale
        ratio = first.learning_rate / first.batch_size / (0.1 / 96)
        cells = (f"{first.examples:,}", first.batch_size, first.learning_rate, first.epochs, f"{noise:g}", f"{ratio:g}")
        assert f" {name} {' '.join(map(str, cells))}" in text


@pytest.mark.parametrize("name", PLANS)
def test_a_file_is_its_main_row(name):
    main = "O" if name == "figure1_resnet18" else "stepwise"
    assert load_config(file(name)) == load_rows(file(name))[main]
    assert all(config.reproduces.endswith(f"/{row}") for row, config in load_rows(file(name)).items())


@pytest.mark.parametrize("name", NAMES)
def test_its_docstring_says_how_to_run_it(name):
    assert load_config(file(name)).model.name in models.names()
    assert f"python launch.py train configs/{name}.py --workdir runs/" in docstring(name)


@pytest.mark.parametrize("name", PLANS)
def test_its_docstring_gives_the_paper_scores_and_the_cost(name):
    text = docstring(name)
    assert f"python launch.py train configs/{name}.py --workdir runs/{name} " in text
    for row, config in load_rows(file(name)).items():
        expected = find_result(config.reproduces)
        assert expected is not None
        assert expected.top1 is None or f"{expected.top1:.2f}" in text
        if row in ("baseline", "stepwise"):
            cost = plan_of(config)
            samples, updates = sum(stage.samples for stage in cost), sum(stage.updates for stage in cost)
            assert f"{samples:,} samples in {updates:,} updates" in text
            assert expected.top5 is None or f"{expected.top5:.2f} %" in text


def docstring(name: str) -> str:
    return " ".join(str(importlib.import_module(f"configs.{name}").__doc__).split())


@pytest.fixture(scope="session")
def made_images(tmp_path_factory):
    """`made_images(100)`: 100 classes of coloured noise, with one training image each but at least 50, 9 x 7 pixels."""
    made = {}

    def make(classes: int) -> DataConfig:
        if classes not in made:
            folder = tmp_path_factory.mktemp(f"made_{classes}")
            _write_images(folder, classes)
            prepared = str(tmp_path_factory.mktemp(f"prepared_{classes}"))
            made[classes] = DataConfig(name="image_folder", root=str(folder), data_dir=prepared, image_size=32)
            datasets.prepare(made[classes], lambda *_: None)
        return made[classes]

    return make


def _write_images(folder: Path, classes: int) -> None:
    generator = np.random.default_rng(classes)
    images = [("train", index) for index in range(max(50, classes))] + [("test", index) for index in range(10)]
    for split, index in images:
        label = folder / split / f"{index % classes:03d}"
        label.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 128, (9, 7, 3)) + generator.integers(0, 128, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(label / f"{index}.png")


def _network_weights(config: ExperimentConfig, path: Path) -> None:
    """A file of random weights for the shrunk network, with ImageNet's 1000 classes."""
    model, name = config.model, str(config.model.name)
    network = models.build(name, num_classes=1000, width=model.width, blocks=model.blocks)
    images = np.zeros((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    generator = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: np.asarray(
            generator.normal(0, 0.05, leaf.shape) if len(leaf.shape) > 1 else np.ones(leaf.shape), "f"
        ),
        shapes,
    )
    path.parent.mkdir()
    models.write_safetensors(path, models.to_torch(name, variables))


@pytest.fixture(scope="session")
def finished():
    """Runs by shrunk experiment: some files differ in b alone, which shrinking sets."""
    return {}


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_shrunk(name, made_images, finished, tmp_path, monkeypatch):
    """With its own stages, and initial weights at its own path; one of them with growing batches.

    Ten classes at most: each further number of classes would compile further programs.
    """
    full = load_config(file(name))
    monkeypatch.chdir(tmp_path)
    classes = min(10, PUBLISHED_SIZES[full.data.name].num_classes if full.data.name in PUBLISHED_SIZES else 10)
    data = dataclasses.replace(made_images(classes), normalisation=full.data.normalisation)
    config = dataclasses.replace(shrink(full, data, batch_growth=2.0 if name == "digits" else 1.0), reproduces="")
    if config not in finished:
        finished[config] = _run(config, classes, tmp_path)
    planned, run = finished[config]
    assert len(planned) == len(full.plan.fractions)
    assert planned[0].updates == 2
    epochs = record_file.read_records(run).epochs
    assert [epoch["updates"] for epoch in epochs] == np.cumsum([stage.updates for stage in planned]).tolist()
    assert all(np.isfinite(epoch["train_loss"]) for epoch in epochs)
    started_from = json.loads((run / "config.json").read_text())["initial_weights_sha256"]
    assert (started_from is not None) == (full.model.initial_weights is not None)


def _run(config: ExperimentConfig, classes: int, folder: Path) -> tuple[tuple[Stage, ...], Path]:
    """Plans and trains, as `launch.py train` does."""
    if config.model.initial_weights:
        _network_weights(config, folder / config.model.initial_weights)
    planned = plan_of(config)
    network = build_network(config, classes)
    variables = networks.initial_variables(config, classes)
    summary = loop.run(config, planned, network, folder / "run", variables=variables)
    assert len(summary["stages"]) == len(planned)
    return planned, folder / "run"
