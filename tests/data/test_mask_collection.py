"""A collection as the three public sets of masks are: nested by source, of many formats and sizes, with copies."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from data_files import quiet
from PIL import Image

import launch
from stepwise_jax.data import datasets
from stepwise_jax.experiment.config import DataConfig

LARGE = (5760, 3272)
FIRST = ("observations/experiments/data/with_mask", "observations/experiments/data/without_mask")
SECOND = ("kaggle/Face Mask Dataset/WithMask", "kaggle/Face Mask Dataset/WithoutMask")
THIRD = ("third/Mask", "third/no-mask")


def photograph(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture of its own for each number; of few colours, so that a palette holds them all."""
    tiles = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(tiles).resize(size, Image.Resampling.NEAREST)


def write(path: Path, image: Image.Image, form: str, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, form, **options)


def transparent(image: Image.Image) -> Image.Image:
    covered = image.convert("RGBA")
    covered.putalpha(Image.linear_gradient("L").resize(image.size))
    return covered


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    """67 images: 36 pictures, 30 of which are there twice and two of these in both classes; and a very large one."""
    root = tmp_path_factory.mktemp("masks") / "root"
    for number in range(36):
        image, label = photograph(number), number % 2
        write(root / FIRST[label] / f"{number} x_0_{number}.png", image, "PNG")
        if number < 10:
            write(root / SECOND[label] / f"Augmented_{number}.jpg", image, "PNG")
        elif number < 20:
            write(root / SECOND[label] / f"{number}.png", image.quantize(), "PNG")
        elif number < 28:
            write(root / THIRD[label] / f"{number}.PNG", transparent(image), "PNG")
        elif number < 30:
            write(root / FIRST[1 - label] / f"{number}.webp", image, "WEBP", lossless=True)
    write(root / "third/Mask/large.jpg", photograph(100, LARGE), "JPEG")
    (root / "third/readme.txt").write_text("where they are from")
    return root


def pixels(path: Path) -> bytes:
    """What Pillow alone decodes."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).tobytes()


@pytest.fixture(scope="module")
def data(collection) -> DataConfig:
    return DataConfig(name="face_mask", data_dir=str(collection.parent / "data"))


@pytest.fixture(scope="module")
def said(collection, data) -> list[str]:
    """The warnings of `prepare`."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("stepwise_jax").addHandler(handler)
    try:
        assert launch.main(["prepare", "face_mask", "--from", str(collection), "--data-dir", str(data.data_dir)]) == 0
    finally:
        logging.getLogger("stepwise_jax").removeHandler(handler)
    return messages


def ids(data: DataConfig, split: str) -> list[str]:
    dataset = datasets.open_dataset(data)
    return list(datasets.labels_and_ids(dataset, *datasets.used_rows(data, dataset, split))[1])


def test_every_image_of_every_source_is_stored(collection, data, said):
    found = {name for split in ("train", "test") for name in ids(data, split)}
    images = {path.relative_to(collection).as_posix() for path in collection.rglob("*.*") if path.suffix != ".txt"}
    assert found == images
    assert len(found) == 67


def test_copies_between_training_and_test_are_named_and_counted(collection, data, said):
    trained = {pixels(collection / name): name for name in ids(data, "train")}
    shared = [name for name in ids(data, "test") if pixels(collection / name) in trained]
    assert shared, "the draw has put no copies on both sides"
    (sentence,) = [each for each in said if "test images that are also in training" in each]
    assert f"in training: {len(shared)} (" in sentence
    test, train = re.findall(r"'([^']+)' = '([^']+)'", sentence)[0]
    assert test in shared
    assert pixels(collection / train) == pixels(collection / test)
    dataset = datasets.open_dataset(data)
    assert datasets.shared_images(data, dataset) == (len(shared), len(ids(data, "test")))


def test_copies_in_both_classes_are_named(said):
    (sentence,) = [each for each in said if "label of another class" in each]
    assert "label of another class: 4 (" in sentence
    assert ".webp'" in sentence


def test_copies_are_left_out_of_training_on_request(collection, data, said):
    config = DataConfig(name="face_mask", data_dir=data.data_dir, duplicates="drop")
    trained, scored = ([pixels(collection / name) for name in ids(config, split)] for split in ("train", "test"))
    assert len(trained) == len(set(trained)) < len(ids(data, "train"))
    assert not set(trained) & set(scored)


def test_the_large_image_is_scaled_to_what_training_takes(data, said):
    dataset = datasets.open_dataset(data)
    split = "train" if "third/Mask/large.jpg" in ids(data, "train") else "test"
    examples = datasets.load(dataset, split, 32, quiet)
    found = examples.images[examples.ids.index("third/Mask/large.jpg")]
    expected = np.asarray(photograph(100, LARGE).resize((32, 32), Image.Resampling.BOX), int)
    assert np.abs(found.astype(int) - expected).mean() < 4
