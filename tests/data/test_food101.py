"""Food-101 from its archive and its folder, in the original layout, made here with few images."""

import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_files import config_of, prepared, quiet, refused, write_archive, write_folder
from PIL import Image
from tensorflow_datasets.core import hashing

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.sources import archive, food101
from stepwise_jax.errors import InputError

CLASSES = ("apple_pie", "baby_back_ribs", "baklava")
PER_CLASS = {"train": 5, "test": 3}


def ids(split: str) -> list[str]:
    first = 100 if split == "train" else 900
    return [f"{name}/{first + row}" for name in CLASSES for row in range(PER_CLASS[split])]


def picture(example: str) -> bytes:
    stream = io.BytesIO()
    number = int(example.split("/")[1])
    Image.new("RGB", (20 + number % 7, 16), (number % 256, 90, 10 * CLASSES.index(example.split("/")[0]))).save(
        stream, "JPEG"
    )
    return stream.getvalue()


def food_files(lists: str = "both") -> dict[str, bytes]:
    files = {"food-101/license_agreement.txt": b"terms", "food-101/README.txt": b"about"}
    files["food-101/meta/classes.txt"] = "".join(f"{name}\n" for name in CLASSES).encode()
    files["food-101/meta/labels.txt"] = b"Apple pie\nBaby back ribs\nBaklava\n"
    for split in PER_CLASS:
        if lists != "json":
            files[f"food-101/meta/{split}.txt"] = "".join(f"{example}\n" for example in ids(split)).encode()
        if lists != "txt":
            by_class = {name: [example for example in ids(split) if example.startswith(name)] for name in CLASSES}
            files[f"food-101/meta/{split}.json"] = json.dumps(by_class).encode()
        files |= {f"food-101/images/{example}.jpg": picture(example) for example in ids(split)}
    return files


def assert_is_food101(dataset: Dataset) -> None:
    assert dataset.class_names == CLASSES
    for split in PER_CLASS:
        labels, found = datasets.labels_and_ids(dataset, split)
        assert sorted(found) == sorted(ids(split))
        assert [CLASSES[label] for label in labels] == [name.split("/")[0] for name in found]
        skipped = {"image": tfds.decode.SkipDecoding()}
        for record in dataset.builder.as_data_source(split, decoders=skipped):
            assert record["image"] == picture(record["id"].decode())


@pytest.mark.parametrize("lists", ["both", "json", "txt"])
def test_archive(tmp_path, lists):
    path = write_archive(tmp_path / "food-101.tar.gz", food_files(lists))
    assert_is_food101(prepared("food101", path, tmp_path / "data"))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["stepwise_food101"]


@pytest.mark.parametrize("inside", [False, True])
def test_folder(tmp_path, inside):
    path = write_folder(tmp_path / "there", food_files())
    assert_is_food101(prepared("food101", path / "food-101" if inside else path, tmp_path / "data"))


def test_order_is_the_one_of_tfds(tmp_path):
    dataset = prepared("food101", write_archive(tmp_path / "a.tar.gz", food_files()), tmp_path / "data")
    # TFDS's own builder of Food-101 keys its examples by the lines of the lists.
    expected = sorted(ids("train"), key=hashing.Hasher("train").hash_key)
    assert list(datasets.labels_and_ids(dataset, "train")[1]) == expected


def test_class_names_and_their_order_are_those_of_tfds():
    names = tfds.core.tfds_path("image_classification/food-101_classes.txt").read_text().split()
    assert tuple(names[:3]) == CLASSES


def test_progress_of_unpacking(tmp_path):
    calls = []
    path = write_archive(tmp_path / "a.tar.gz", food_files())
    datasets.prepare(config_of("food101", path, tmp_path / "data"), lambda *call: calls.append(call), fetch=True)
    assert any(what == "a.tar.gz: unpacking images" for _, _, what in calls)


def test_nothing_is_left_of_what_was_unpacked(tmp_path, monkeypatch):
    opened = []
    real = tempfile.TemporaryFile

    def noted(**options):
        opened.append(real(**options))
        assert not [path for path in (tmp_path / "data").iterdir() if path.name != "stepwise_food101"]
        return opened[-1]

    monkeypatch.setattr(food101.tempfile, "TemporaryFile", noted)
    path = write_archive(tmp_path / "a.tar.gz", food_files())
    prepared("food101", path, tmp_path / "data")
    assert opened[0].closed
    content = path.read_bytes()
    path.write_bytes(content[:-500])
    refused("food101", path, tmp_path / "again", "is not a complete tar archive")
    assert opened[1].closed


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_archive(tmp_path, share):
    path = write_archive(tmp_path / "a.tar.gz", food_files())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused("food101", path, tmp_path, r"a.tar.gz' is not a complete tar archive")


@pytest.mark.parametrize("write", [write_archive, write_folder])
@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("images/baklava/901.jpg", r"lacks 1 images that its lists name: images/baklava/901.jpg"),
        ("meta/classes.txt", r"lacks food-101/meta/classes.txt"),
        ("meta/train", r"lacks food-101/meta/train.json"),
    ],
)
def test_missing_files(tmp_path, write, lost, message):
    files = {name: content for name, content in food_files().items() if not name.startswith(f"food-101/{lost}")}
    refused("food101", write(tmp_path / "there", files), tmp_path, message)


def test_image_that_is_a_link_in_the_archive(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(picture(ids("test")[0]))
    files = food_files()
    lost = f"food-101/images/{ids('test')[0]}.jpg"
    del files[lost]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(lost)
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        made.addfile(link)
    refused("food101", path, tmp_path, r"lacks 1 images that its lists name: images/apple_pie/900.jpg")


@pytest.mark.parametrize("name", ["../../outside.jpg", "/tmp/stepwise-outside.jpg", "food-101/images/../../../x.jpg"])
def test_names_that_lead_out_of_an_archive(tmp_path, name):
    path = write_archive(tmp_path / "in/a.tar.gz", food_files() | {name: b"evil"})
    refused("food101", path, tmp_path, "a name that points outside it")
    assert not list(tmp_path.rglob("outside*"))
    assert not Path("/tmp/stepwise-outside.jpg").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("apple_pie/100", r"the image 'apple_pie/100' is listed twice"),
        ("apple_pie/900", r"the image 'apple_pie/900' is listed twice; list it once, in one split"),
        ("cake/1", r"train.txt names 'cake/1': it must be CLASS/IMAGE, CLASS in meta/classes.txt"),
        ("../secret", r"train.txt names '../secret'"),
        ("apple_pie/..", r"train.txt names 'apple_pie/..'"),
        ("apple_pie/../../../secret", r"train.txt names 'apple_pie/../../../secret'"),
        ("apple_pie", r"train.txt names 'apple_pie'"),
    ],
)
def test_lists_that_cannot_be_right(tmp_path, line, message):
    files = food_files("txt")
    files["food-101/meta/train.txt"] += f"{line}\n".encode()
    refused("food101", write_folder(tmp_path / "there", files), tmp_path, message)


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"apple_pie": 7}', b"\xff", b'{"apple_pie": ["apple_'])
def test_damaged_json(tmp_path, content):
    files = food_files() | {"food-101/meta/test.json": content}
    refused("food101", write_folder(tmp_path / "there", files), tmp_path, r"meta/test.json is damaged")


def test_empty_split(tmp_path):
    files = food_files("txt") | {"food-101/meta/test.txt": b"\n"}
    refused("food101", write_folder(tmp_path / "there", files), tmp_path, r"there are no images in the split 'test'")


def test_class_that_comes_twice(tmp_path):
    files = food_files()
    files["food-101/meta/classes.txt"] += b"baklava\n"
    refused("food101", write_folder(tmp_path / "there", files), tmp_path, r"the class 'baklava' is listed twice")


def test_wrong_folder_and_wrong_archive(tmp_path):
    (tmp_path / "empty").mkdir()
    refused("food101", tmp_path / "empty", tmp_path, r"empty' is not food101: it must hold food-101/meta and")
    path = write_archive(tmp_path / "a.tar.gz", {"other/file": b"x"})
    refused("food101", path, tmp_path, r"lacks food-101/meta/classes.txt: the copy of food101 is incomplete")


def test_damaged_images_are_named(tmp_path):
    files = food_files()
    files["food-101/images/baklava/103.jpg"] = files["food-101/images/baklava/103.jpg"][:200]
    files["food-101/images/baklava/104.jpg"] = b""
    message = r"2 images cannot be decoded completely: baklava/103 \(.*\), baklava/104 \(empty file\)"
    refused("food101", write_archive(tmp_path / "a.tar.gz", files), tmp_path, message)


def test_absurdly_large_image(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MAX_FILE_BYTES", 2000)
    files = food_files()
    files["food-101/images/baklava/103.jpg"] = b"x" * 2001
    refused("food101", write_archive(tmp_path / "a.tar.gz", files), tmp_path, r"103.jpg' of 2,001 bytes")


def test_images_shrunk_by_the_network_size(tmp_path):
    dataset = prepared("food101", write_archive(tmp_path / "a.tar.gz", food_files()), tmp_path / "data")
    examples = datasets.load(dataset, "test", 8, quiet)
    assert examples.images.shape == (9, 8, 8, 3)
    for image, name in zip(examples.images, examples.ids, strict=True):
        expected = np.asarray(Image.open(io.BytesIO(picture(name))))
        assert np.abs(image.astype(int) - expected[0, 0]).max() <= 2


def test_not_given_and_not_prepared(tmp_path):
    with pytest.raises(InputError, match=r"'food101'.*`python launch.py prepare food101`"):
        datasets.open_dataset(config_of("food101", tmp_path, tmp_path / "data"))
