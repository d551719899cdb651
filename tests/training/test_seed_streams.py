"""Streams of random numbers: each changes what it is named for, and nothing else."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import TinyNet

from stepwise_jax.data import datasets, subsets
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig, ExperimentConfig, PlanConfig, StreamsConfig
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.training.session import open_session

DATA = {"name": "digits", "image_size": 8, "train_examples": 200, "subset_draw": "seeded"}


def experiment_with(data_dir, **fields) -> ExperimentConfig:
    data = {name: fields.pop(name) for name in ("sample_seed", "augmentation", "train_examples") if name in fields}
    config = DataConfig(**{**DATA, **data}, data_dir=str(data_dir))
    plan = PlanConfig(fractions=(0.5, 1.0), batch_multipliers=(1.0, 1.0), epochs_per_stage=1, decay_every=1)
    return ExperimentConfig(data=config, plan=plan, steps_per_call=1, **fields)


def parts_of(experiment: ExperimentConfig, folder) -> dict[str, object]:
    """What each stream decides, in a session that is ready to train."""
    sizes = datasets.sizes(experiment.data)
    stages = make_plan(experiment.plan, sizes.train, experiment.optimizer)
    folder.mkdir()
    with open_session(experiment, stages, TinyNet(), None, folder) as session:
        state = session.make_initial_state()
        ids = json.loads((folder / "subsets.json").read_text())
        rows = session.subsets[0].rows
        return {
            "init": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(state.params)],
            # The order as positions in the subset, which may itself be another.
            "order": np.searchsorted(np.sort(rows), np.sort(session.sampler[0])).tolist(),
            "keys": None if state.key is None else np.asarray(state.key).tolist(),
            "subset": sorted(rows.tolist()),
            "sample": ids["train"]["sha256"],
        }


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({}, set()),
        ({"streams": StreamsConfig(0, 0, 0)}, set()),
        ({"streams": StreamsConfig(init=1)}, {"init"}),
        ({"streams": StreamsConfig(order=1)}, {"order", "keys"}),
        ({"streams": StreamsConfig(subset=1)}, {"subset"}),
        ({"seed": 1}, {"init", "order", "keys", "subset"}),
        ({"sample_seed": 1}, {"sample"}),
    ],
)
def test_a_stream_changes_its_part_alone(data_dir, tmp_path, fields, changed):
    usual = experiment_with(data_dir, augmentation=("flip",))
    before = parts_of(usual, tmp_path / "before")
    after = parts_of(experiment_with(data_dir, augmentation=("flip",), **fields), tmp_path / "after")
    differing = {name for name in before if before[name] != after[name]}
    # Whether the first batch has the same positions says nothing where the subset is another.
    assert differing - ({"order"} if "subset" in changed and "order" not in changed else set()) == changed


def test_the_sample_is_drawn_from_the_whole_training_set_without_what_is_held_out(data_dir):
    config = dataclasses.replace(experiment_with(data_dir).data, sample_seed=5, validation_fraction=0.2)
    dataset = datasets.open_dataset(config)
    _, held_out = datasets.used_rows(config, dataset, "test")
    _, rows = datasets.used_rows(config, dataset, "train")
    assert len(set(rows)) == 200
    assert list(rows) == sorted(rows)
    assert max(rows) < min(held_out)
    assert max(rows) > 1000
    assert datasets.sizes(config).train == 200


def test_a_sample_is_uniform_and_apart_from_the_subset_draw():
    drawn = np.array([subsets.draw_sample(seed, 50, 10) for seed in range(2000)])
    counts = np.bincount(drawn.ravel(), minlength=50)
    # 400 each, with a standard deviation of 17.9.
    assert counts.min() > 400 - 5 * 17.9
    assert counts.max() < 400 + 5 * 17.9
    first = np.sort(subsets.seeded_order(0, 50)[:10])
    assert first.tolist() != subsets.draw_sample(0, 50, 10).tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample_seed": -1}, "data.sample_seed is -1: it must be between 0 and 4294967295"),
        ({"sample_seed": 1, "train_examples": None}, "data.sample_seed is 1: it must be None without"),
        ({"sample_seed": 1, "subset_draw": "tfds"}, "data.sample_seed is 1: it must be None without"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        DataConfig(**{**DATA, **fields})


def test_a_seed_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"streams\.order is 4294967296: it must be between 0 and 4294967295"):
        StreamsConfig(order=2**32)
