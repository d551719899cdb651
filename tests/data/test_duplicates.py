"""Images with identical pixels: found once, told, and left out or refused."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from data_files import folder, quiet, source_of, write_image
from PIL import Image

from stepwise_jax.data import datasets, subsets
from stepwise_jax.data.dataset import Sizes
from stepwise_jax.data.prepared import writing
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig


@pytest.fixture
def root(tmp_path) -> Path:
    """Ten training and four test images: one test image, one cat twice, and one image as cat and as dog."""
    root = tmp_path / "root"
    for label, name in enumerate(("cat", "dog")):
        for row in range(5):
            write_image(root / "train" / name / f"{row}.png", 10 + 60 * label + row)
        for row in range(2):
            write_image(root / "test" / name / f"{row}.png", 140 + 60 * label + row)
    write_image(root / "train/cat/shared.bmp", 140)
    write_image(root / "train/cat/twice.png", 10)
    write_image(root / "train/dog/cat.png", 13)
    return root


def messages(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_identical_images_are_counted_and_named_once(root, caplog):
    caplog.set_level(logging.WARNING)
    data = folder(root)
    for _ in range(2):
        datasets.prepare(data, quiet)
        assert datasets.shared_images(data, datasets.open_dataset(data)) == (1, 4)
    said = messages(caplog)
    assert said[0] == (
        "image_folder: test images that are also in training: 1 ('test/cat/0.png' = 'train/cat/shared.bmp')"
    )
    assert said[1].startswith("image_folder: images whose copy has the label of another class: 2 ('train/")
    assert said[2].startswith("image_folder: further copies within a class of one split: 1 ('train/cat/")
    assert len(said) == 4
    assert datasets.sizes(data) == Sizes(13, 4, 2)


def used_ids(data: DataConfig) -> tuple[str, ...]:
    dataset = datasets.open_dataset(data)
    return datasets.labels_and_ids(dataset, *datasets.used_rows(data, dataset, "train"))[1]


def test_copies_are_left_out_of_training(root):
    everything, data = folder(root), folder(root, duplicates="drop")
    assert datasets.sizes(data) == Sizes(9, 4, 2)
    ids, dataset = used_ids(data), datasets.open_dataset(data)
    unused = set(used_ids(everything)) - set(ids)
    assert {"train/cat/shared.bmp", "train/dog/cat.png", "train/cat/3.png"} < unused
    assert len(unused & {"train/cat/0.png", "train/cat/twice.png"}) == 1
    assert list(ids) == [name for name in used_ids(everything) if name not in unused]
    stored, rows = datasets.used_rows(data, dataset, "train")
    examples = datasets.load(dataset, stored, 16, quiet, rows)
    assert examples.ids == ids
    read = datasets.make_image_reader(dataset, stored, 16, rows)
    np.testing.assert_array_equal(read(np.arange(9)), examples.images)
    assert datasets.shared_images(data, dataset) == (0, 4)


@pytest.mark.parametrize("draw", ["tfds", "seeded", "stratified"])
def test_subsets_of_what_remains_are_nested_and_of_the_right_sizes(root, draw):
    data = folder(root, duplicates="drop")
    datasets.prepare(data, quiet)
    dataset = datasets.open_dataset(data)
    labels, ids = datasets.labels_and_ids(dataset, *datasets.used_rows(data, dataset, "train"))
    drawn = [subsets.draw(draw, 0, labels, ids, (2, 5, 9), dataset.builder) for _ in range(2)]
    assert [subset.sha256 for subset in drawn[0]] == [subset.sha256 for subset in drawn[1]]
    rows = [set(subset.rows.tolist()) for subset in drawn[0]]
    assert [len(each) for each in rows] == [2, 5, 9]
    assert rows[0] < rows[1] < rows[2] == set(range(9))


def test_held_out_images_and_a_number_of_examples_are_of_what_remains(root):
    data = folder(root, duplicates="drop", validation_fraction=1 / 3, train_examples=4)
    assert datasets.sizes(data) == Sizes(4, 3, 2)
    dataset = datasets.open_dataset(data)
    everything = used_ids(folder(root, duplicates="drop"))
    assert used_ids(data) == everything[:4]
    assert datasets.labels_and_ids(dataset, *datasets.used_rows(data, dataset, "test"))[1] == everything[6:]


def test_identical_images_are_refused_on_request(root, tmp_path):
    data = folder(root, duplicates="refuse")
    with pytest.raises(
        InputError, match=r"data.duplicates is 'refuse': 6 images .*, and 1 test images are also in tra"
    ):
        datasets.prepare(data, quiet)
    write_image(tmp_path / "other/cat/0.png", 1)
    write_image(tmp_path / "other/cat/1.png", 2)
    write_image(tmp_path / "other/dog/0.png", 3)
    write_image(tmp_path / "other/dog/1.png", 4)
    datasets.prepare(folder(tmp_path / "other", duplicates="refuse", test_fraction=0.5), quiet)


def test_pixels_count_and_not_how_they_are_encoded(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8))
    for name in ("train/cat/a.png", "train/dog/b.bmp", "test/cat/c.tiff", "test/dog/d.webp"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, lossless=True)
    data = folder(tmp_path / "root")
    datasets.prepare(data, quiet)
    assert datasets.shared_images(data, datasets.open_dataset(data)) == (2, 2)


def test_arrays_are_compared_too(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    pixels = np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3)
    pixels[5] = pixels[1]
    writing.prepare(source_of(pixels), tmp_path, quiet)
    assert messages(caplog)[0].startswith("made: test images that are also in training: 1 ('made_5' = 'made_1')")


@pytest.mark.parametrize("choice", ["drop", "refuse"])
def test_data_that_were_not_searched_are_refused(tmp_path, choice):
    writing.prepare(source_of(np.zeros((6, 2, 2, 1), np.uint8)), tmp_path, quiet)
    path = tmp_path / "stepwise_made/1.0.0/metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["duplicates"]
    path.write_text(json.dumps(metadata))
    datasets.open_dataset(DataConfig(name="stepwise_made", data_dir=str(tmp_path)))
    with pytest.raises(InputError, match=rf"data.duplicates is '{choice}': .* remove it and prepare it again"):
        datasets.open_dataset(DataConfig(name="stepwise_made", data_dir=str(tmp_path), duplicates=choice))


def test_nothing_to_train_on_is_refused(tmp_path):
    writing.prepare(source_of(np.zeros((6, 2, 2, 1), np.uint8)), tmp_path, quiet)
    with pytest.raises(InputError, match="all training images of stepwise_made are copies"):
        datasets.sizes(DataConfig(name="stepwise_made", data_dir=str(tmp_path), duplicates="drop"))


def test_a_run_records_what_is_shared_and_trains_on_what_remains(train, root, tmp_path):
    fields = {"data.name": "image_folder", "data.root": str(root), "data.data_dir": str(tmp_path / "data")}
    fields |= {"plan.fractions": (0.5, 1.0), "plan.batch_multipliers": (1.0, 1.0), "plan.batch_size": 2}
    fields |= {"plan.epochs_per_stage": 1}
    states, told = [], []
    for choice, delivery in (("warn", "resident"), ("drop", "resident"), ("drop", "streamed")):
        folder = tmp_path / f"{choice}_{delivery}"
        summary = train(folder, **fields, **{"data.duplicates": choice, "data.delivery": delivery})
        rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
        told.append([row["message"] for row in rows if row.get("name") == "duplicates"])
        states.append(summary["state_sha256"])
        stages = json.loads((folder / "subsets.json").read_text())["stages"]
        assert [stage["count"] for stage in stages] == ([6, 13] if choice == "warn" else [4, 9])
    assert told == [["1 of 4 test images are also in training"], [], []]
    assert states[1] == states[2] != states[0]
