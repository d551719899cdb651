"""Opening a trained network from the folder of its run alone."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import TinyNet

from stepwise_jax.errors import InputError
from stepwise_jax.inference.predict import make_classifier
from stepwise_jax.inference.trained import open_trained, read_description
from stepwise_jax.workdir import lock
from stepwise_jax.workdir.folder import read_experiment
from tests.digits_run import config, damage_newest, damage_signature, examples, listing, make_old, train


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory) -> Path:
    return train(config(data_dir), tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def test_the_opened_network_is_the_one_that_was_scored(run, data_dir):
    trained = open_trained(run, TinyNet())
    predictions = np.load(run / "predictions.npz")
    found = jax.jit(make_classifier(trained))(trained.variables, examples(data_dir, "test").images)
    np.testing.assert_allclose(found, predictions["probabilities"], rtol=1e-5, atol=1e-7)
    assert trained.signature.classes == tuple("0123456789")
    assert trained.updates == json.loads((run / "summary.json").read_text())["updates"]
    assert trained.experiment == read_experiment(run)


def test_opening_passes_over_a_damaged_checkpoint_and_changes_nothing(copy, caplog):
    (copy / "lock").unlink()
    damage_newest(copy)
    before = listing(copy)
    trained = open_trained(copy, TinyNet())
    assert trained.updates == 287 // 32
    assert (trained.planned_updates, trained.damaged, trained.is_final) == (52, (52,), False)
    assert trained.progress == "8 of 52 updates (the checkpoint after 52 is damaged)"
    assert re.search("checkpoint 52 is damaged .* it is skipped", caplog.text)
    assert listing(copy) == before


def lose_checkpoints(folder: Path) -> None:
    for path in (folder / "checkpoints").iterdir():
        shutil.rmtree(path)


def damage_all_checkpoints(folder: Path) -> None:
    for path in (folder / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: shutil.rmtree(folder / "checkpoints"), "has no checkpoint yet: train it first"),
        (lose_checkpoints, "has no checkpoint yet: train it first"),
        (damage_all_checkpoints, "none of the 2 checkpoints is intact"),
        (make_old, "lacks preprocessing.json"),
        (lambda folder: (folder / "preprocessing.json").write_text("{"), "preprocessing.json is damaged"),
        (lambda folder: (folder / "preprocessing.json").write_text("[]"), "preprocessing.json is damaged"),
        (damage_signature(channels=2), "preprocessing.json is damaged"),
        (damage_signature(classes="cat"), "preprocessing.json is damaged"),
        (damage_signature(mean=[0.5]), "preprocessing.json is damaged"),
        (damage_signature(std=[0, 1, 1]), "preprocessing.json is damaged"),
    ],
)
def test_what_cannot_be_opened_gets_one_sentence(copy, damage, message):
    damage(copy)
    with pytest.raises(InputError, match=message) as error:
        open_trained(copy, TinyNet())
    assert "\n" not in str(error.value)


def test_a_folder_in_which_a_run_trains_is_in_use(run):
    with lock.exclusive_lock(run), pytest.raises(InputError, match="is in use: another process is training in it"):
        open_trained(run, TinyNet())
    open_trained(run, TinyNet())


def test_readers_share_a_folder_and_keep_trainers_out(run):
    with (
        lock.shared_lock(run),
        lock.shared_lock(run),
        pytest.raises(InputError, match="is in use"),
        lock.exclusive_lock(run),
    ):
        pass
    with lock.exclusive_lock(run):
        pass


def test_the_recipe_is_read_without_the_network(run, data_dir):
    experiment, signature = read_description(run)
    assert experiment.data == config(data_dir).data
    assert len(signature.classes) == 10
