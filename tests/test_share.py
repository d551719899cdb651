"""Training on fewer images, and scoring on held-out ones: what is used, and that nothing is used twice."""

import json

import numpy as np
import pytest

from stepwise_jax import datasets
from stepwise_jax.config import DataConfig
from stepwise_jax.datasets import share
from stepwise_jax.datasets.dataset import Sizes
from stepwise_jax.errors import InputError

STORED = Sizes(train=1437, test=360, num_classes=10)


def quiet(*_: object) -> None:
    """No progress is shown."""


def test_all_is_used_by_default():
    assert share.used(DataConfig(), STORED) == STORED
    assert share.rows(DataConfig(), "train", STORED) == ("train", range(1437))
    assert share.rows(DataConfig(), "test", STORED) == ("test", range(360))


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.9])
def test_what_is_held_out_is_not_trained_on(fraction):
    data = DataConfig(validation_fraction=fraction)
    (train_split, train), (test_split, held_out) = (share.rows(data, split, STORED) for split in ("train", "test"))
    assert train_split == test_split == "train"
    assert not set(train) & set(held_out)
    assert len(train) + len(held_out) == 1437
    assert len(held_out) == round(fraction * 1437)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_examples": 1438}, "data.train_examples is 1438: it must be at most 1437"),
        ({"train_examples": 1294, "validation_fraction": 0.1}, "data.train_examples is 1294: it must be at most 1293"),
        ({"validation_fraction": 0.0001}, "data.validation_fraction is 0.0001"),
        ({"validation_fraction": 0.9999}, "data.validation_fraction is 0.9999"),
    ],
)
def test_more_than_there_is_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        share.used(DataConfig(**fields), STORED)


def test_rows_are_those_of_the_whole_split(data_dir):
    data = DataConfig(data_dir=str(data_dir), image_size=8)
    dataset = datasets.open_dataset(data)
    whole, some = datasets.load(dataset, "train", 8, quiet), range(1300, 1437)
    part = datasets.load(dataset, "train", 8, quiet, some)
    np.testing.assert_array_equal(part.images, whole.images[1300:])
    np.testing.assert_array_equal(part.labels, whole.labels[1300:])
    assert part.ids == whole.ids[1300:]
    labels, ids = datasets.index(dataset, "train", some)
    assert (labels.tolist(), ids) == (part.labels.tolist(), part.ids)
    read = datasets.make_read(dataset, "train", 8, some)
    np.testing.assert_array_equal(read(np.array([5, 0])), whole.images[[1305, 1300]])


@pytest.mark.parametrize("draw", ["tfds", "seeded", "stratified"])
def test_a_run_trains_on_its_share_and_scores_the_held_out(train, data_dir, tmp_path, draw):
    fields = {"data.train_examples": 400, "data.validation_fraction": 0.2, "data.subset_draw": draw}
    short = {"plan.epochs_per_stage": 1, "plan.decay_every": 1, "plan.batch_size": 20}
    train(tmp_path / "run", **fields, **short)
    whole = datasets.load(datasets.open_dataset(DataConfig(data_dir=str(data_dir), image_size=8)), "train", 8, quiet)
    manifest = json.loads((tmp_path / "run" / "subsets.json").read_text())
    with np.load(tmp_path / "run" / "predictions.npz") as predictions:
        assert predictions["ids"].tolist() == list(whole.ids[-287:])
        assert predictions["labels"].tolist() == whole.labels[-287:].tolist()
    assert [stage["count"] for stage in manifest["stages"]] == [40, 200, 400]
    assert manifest["train"]["count"] == 400
    # The last stage holds exactly the 400 images, whatever the draw of the others.
    counts = np.bincount(whole.labels[:400], minlength=10).tolist()
    assert list(manifest["stages"][2]["class_counts"].values()) == counts


def test_streamed_and_resident_are_the_same_training(train, tmp_path):
    fields = {"data.train_examples": 300, "data.validation_fraction": 0.1, "plan.epochs_per_stage": 1}
    fields |= {"plan.decay_every": 1, "plan.batch_size": 15}
    digests = {
        way: train(tmp_path / way, **fields, **{"data.delivery": way})["state_sha256"]
        for way in ("resident", "streamed")
    }
    assert digests["resident"] == digests["streamed"]
