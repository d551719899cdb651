"""The files that a run writes for later use, and opening its network from the folder alone."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from conftest import TinyNet

from stepwise_jax.data import dataset, datasets
from stepwise_jax.errors import InputError, ReadError
from stepwise_jax.experiment.config import CheckpointConfig, DataConfig, EvaluationConfig, ExperimentConfig, PlanConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.inference.predict import make_classifier
from stepwise_jax.inference.trained import open_trained, read_description
from stepwise_jax.plans import planning
from stepwise_jax.training import evaluation, loop
from stepwise_jax.workdir import lock, reading
from stepwise_jax.workdir.folder import parse_config, read_config, read_experiment
from stepwise_jax.workdir.predictions import choose_samples, shrink_images

RANDOM = np.random.default_rng(0)


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


def train(experiment: ExperimentConfig, folder: Path) -> None:
    planned = planning.make_plan(experiment.plan, datasets.sizes(experiment.data).train, experiment.optimizer)
    loop.run(experiment, planned, TinyNet(), folder)


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(config(data_dir), folder)
    return folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def examples(data_dir: Path, split: str) -> dataset.Examples:
    data = config(data_dir).data
    return datasets.load(datasets.open_dataset(data), split, data.image_size, lambda *_: None)


def test_preprocessing_json_says_what_the_network_takes(run, data_dir):
    document = json.loads((run / "preprocessing.json").read_text())
    pixels = examples(data_dir, "train").images / 255
    assert document["mean"] == pytest.approx([pixels.mean()] * 3)
    assert document["std"] == pytest.approx([pixels.std()] * 3)
    del document["mean"], document["std"]
    assert document == {
        "image_size": 16,
        "stored_size": [8, 8],
        "channels": 1,
        "classes": list("0123456789"),
        "dataset": "digits",
    }


def test_it_is_written_once(copy, data_dir):
    path = copy / "preprocessing.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    train(config(data_dir), copy)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_predictions_name_the_classes_and_samples_are_of_them(run, data_dir):
    predictions, kept = np.load(run / "predictions.npz"), np.load(run / "samples.npz")
    assert predictions["classes"].tolist() == list("0123456789")
    assert predictions["classes"].dtype.kind == "U"
    rows = choose_samples(predictions["labels"], predictions["probabilities"])
    assert kept["rows"].dtype == np.int64
    np.testing.assert_array_equal(kept["rows"], rows)
    np.testing.assert_array_equal(kept["images"], examples(data_dir, "test").images[rows])


def test_a_streamed_run_leaves_the_same(run, data_dir, tmp_path):
    train(override_fields(config(data_dir), {"data.delivery": "streamed"}), tmp_path / "run")
    assert (tmp_path / "run" / "preprocessing.json").read_bytes() == (run / "preprocessing.json").read_bytes()
    ours, theirs = (np.load(folder / "samples.npz") for folder in (tmp_path / "run", run))
    for name in ("rows", "images"):
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize(("examples", "right"), [(500, 0.5), (30, 0.9), (12, 0.0), (1, 0.0), (40, 1.0)])
def test_samples_are_the_surest_errors_and_some_from_all_over(examples, right):
    probabilities = RANDOM.dirichlet(np.ones(4), examples)
    labels = np.where(RANDOM.random(examples) < right, probabilities.argmax(1), RANDOM.integers(0, 4, examples))
    rows = choose_samples(labels, probabilities).tolist()
    listed = enumerate(zip(probabilities.tolist(), labels, strict=True))
    best = [(max(row), place) for place, (row, label) in listed if row.index(max(row)) != label]
    wrong = [place for _, place in sorted(best, reverse=True)][:12]
    assert rows[: len(wrong)] == wrong
    assert len(rows) == len(set(rows)) <= len(wrong) + 12
    assert {0, examples - 1} <= set(rows)
    # Between 12 places at even distances there are 11 gaps.
    assert all(gap <= examples / 11 + 1 for gap in np.diff(sorted(rows)))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 8, 1), (8, 8, 1)), ((96, 96, 3), (96, 96, 3)), ((192, 384, 3), (48, 96, 3)), ((400, 1, 1), (96, 1, 1))],
)
def test_no_side_of_a_sample_is_above_96_pixels(shape, expected):
    assert shrink_images(RANDOM.integers(0, 256, (2, *shape), dtype=np.uint8)).shape == (2, *expected)


def test_shrinking_averages():
    pixels = RANDOM.integers(0, 256, (1, 192, 96, 3), dtype=np.uint8)
    averaged = pixels.reshape(1, 96, 2, 48, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(shrink_images(pixels), averaged, atol=0.51)


def test_the_opened_network_is_the_one_that_was_scored(run, data_dir):
    trained = open_trained(run, TinyNet())
    predictions = np.load(run / "predictions.npz")
    found = jax.jit(make_classifier(trained))(trained.variables, examples(data_dir, "test").images)
    np.testing.assert_allclose(found, predictions["probabilities"], rtol=1e-5, atol=1e-7)
    assert trained.signature.classes == tuple("0123456789")
    assert trained.updates == json.loads((run / "summary.json").read_text())["updates"]
    assert trained.experiment == read_experiment(run)


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def damage_newest(folder: Path) -> None:
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name) if path.name.isdigit() else -1)
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


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


def test_evaluating_passes_over_a_damaged_checkpoint_says_so_and_changes_nothing(copy):
    damage_newest(copy)
    before = listing(copy)
    experiment, planned = parse_config(read_config(copy))
    scores = evaluation.evaluate(experiment, planned, TinyNet(), copy)
    assert (scores["updates"], scores["planned_updates"]) == (287 // 32, 52)
    assert scores["damaged_checkpoints"] == [52]
    assert listing(copy) == before


def test_a_checkpoint_that_cannot_be_read_is_neither_passed_over_nor_changed(copy, monkeypatch):
    monkeypatch.setattr(reading, "RETRY_PAUSES", (0,))
    path = copy / "checkpoints" / "52" / "state" / "manifest.ocdbt"
    path.unlink()
    path.symlink_to(path)
    before = listing_of_links(copy)
    experiment, planned = parse_config(read_config(copy))
    for read in (
        lambda: evaluation.evaluate(experiment, planned, TinyNet(), copy),
        lambda: open_trained(copy, TinyNet()),
    ):
        with pytest.raises(ReadError, match="52 cannot be read"):
            read()
        assert listing_of_links(copy) == before
    with pytest.raises(ReadError, match="52 cannot be read"):
        train(config_of(copy), copy)
    assert (copy / "checkpoints" / "52").is_dir()


def listing_of_links(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def config_of(folder: Path) -> ExperimentConfig:
    return parse_config(read_config(folder))[0]


def test_a_folder_that_cannot_be_written_can_be_evaluated(copy, monkeypatch):
    def refuse(path: Any, flags: int, *arguments: Any, **names: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *arguments, **names)

    opened = os.open
    monkeypatch.setattr(os, "open", refuse)
    before = listing(copy)
    experiment, planned = parse_config(read_config(copy))
    with lock.shared_lock(copy):
        scores = evaluation.evaluate(experiment, planned, TinyNet(), copy)
    assert (scores["updates"], scores["planned_updates"], scores["damaged_checkpoints"]) == (52, 52, [])
    assert not lock.is_locked(copy)
    assert listing(copy) == before


def test_evaluating_without_the_recorded_examples_is_refused(copy):
    (copy / "subsets.json").unlink()
    with pytest.raises(InputError, match=r"there is no subsets\.json"):
        evaluation.evaluate(*parse_config(read_config(copy)), TinyNet(), copy)


def make_old(folder: Path) -> None:
    (folder / "preprocessing.json").unlink()


def damage_signature(**changes: object):
    def damage(folder: Path) -> None:
        path = folder / "preprocessing.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


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
        (shutil.rmtree, "there is no config.json"),
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


def test_a_run_of_an_earlier_version_gets_its_preprocessing_by_being_evaluated(copy, data_dir):
    before = (copy / "preprocessing.json").read_bytes()
    make_old(copy)
    experiment, planned = parse_config(read_config(copy))
    evaluation.evaluate(experiment, planned, TinyNet(), copy)
    assert (copy / "preprocessing.json").read_bytes() == before


@pytest.mark.parametrize(
    "changes", [{"image_size": 17}, {"mean": [0.5, 0.1, 0.1]}, {"std": [1, 1, 1]}, {"classes": list("0123456798")}]
)
def test_evaluating_finds_a_signature_that_is_not_the_runs(copy, changes):
    damage_signature(**changes)(copy)
    with pytest.raises(InputError, match=r"preprocessing\.json does not describe the images of this run"):
        evaluation.evaluate(*parse_config(read_config(copy)), TinyNet(), copy)


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
