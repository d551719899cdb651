"""What `prepare` takes, and what it refuses with one sentence: odd images, contradictions, full and read-only disks."""

import dataclasses
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_files import quiet, source_of, write_archive, write_classes
from PIL import Image
from test_food101 import food_files
from test_images import encoded

import launch
from stepwise_jax.data import datasets
from stepwise_jax.data.prepared import writing
from stepwise_jax.data.source import SourceSplit
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig

ROOT = Path(__file__).parents[2]
HEIGHT, WIDTH = 12, 16


def refused(capsys, *words: str) -> str:
    """The one sentence in which `prepare` refuses."""
    capsys.readouterr()
    assert launch.main(["prepare", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("error: ") == 1
    return err.splitlines()[-1].removeprefix("error: ")


def picture() -> Image.Image:
    """Colours that tell every side and corner from the others."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(np.stack([columns * 15, rows * 20, rows + columns], -1).astype(np.uint8))


def stored_and_read(tmp_path: Path, name: str, content: bytes) -> np.ndarray:
    """The image as training gets it, after it was prepared from a file of its own."""
    write_classes(tmp_path / "root/train", count=1)
    write_classes(tmp_path / "root/test", count=1)
    (tmp_path / "root/train/cat" / name).write_bytes(content)
    data = DataConfig(name="image_folder", root=str(tmp_path / "root"), data_dir=str(tmp_path / "data"))
    datasets.prepare(data, quiet)
    dataset = datasets.open_dataset(data)
    read = datasets.make_image_reader(dataset, "train", WIDTH)
    row = datasets.labels_and_ids(dataset, "train")[1].index(f"train/cat/{name}")
    return read(np.array([row]))[0]


def as_trained(image: Image.Image) -> np.ndarray:
    """The image at the size that training asks for, by the rule of images larger than none and smaller than none."""
    import cv2

    return cv2.resize(np.asarray(image.convert("RGB")), (WIDTH, WIDTH), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "1", "RGBA"])
def test_modes_of_png_are_taken_as_they_are(tmp_path, mode):
    image = picture().convert(mode)
    read = stored_and_read(tmp_path, "odd.png", encoded(image, "PNG"))
    # Grey from bits, and colours from a palette, are the same in both decoders; so is what is under an alpha channel.
    np.testing.assert_array_equal(read, as_trained(image))


def test_sixteen_bits_are_taken_by_their_upper_half(tmp_path):
    levels = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    read = stored_and_read(tmp_path, "odd.png", encoded(Image.fromarray(levels), "PNG"))
    np.testing.assert_array_equal(read, as_trained(Image.fromarray((levels >> 8).astype(np.uint8))))


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_modes_of_jpeg_are_taken(tmp_path, mode):
    image = picture().convert(mode)
    read = stored_and_read(tmp_path, "odd.jpg", encoded(image, "JPEG", quality=100))
    assert np.abs(read.astype(int) - as_trained(image)).mean() < 4


@pytest.mark.parametrize(("orientation", "turn"), [(3, "ROTATE_180"), (6, "ROTATE_270"), (8, "ROTATE_90")])
def test_exif_rotated_images_are_turned_upright(tmp_path, orientation, turn):
    tags = Image.Exif()
    tags[0x0112] = orientation
    read = stored_and_read(tmp_path, "odd.png", encoded(picture(), "PNG", exif=tags))
    np.testing.assert_array_equal(read, as_trained(picture().transpose(Image.Transpose[turn])))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb() -> bytes:
    """A PNG of a few kilobytes that claims 60,000 x 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bomb.png", bomb(), "more than 89478485 pixels"),
        ("empty.jpg", b"", "empty file"),
        ("text.jpg", b"This is no image at all.", "no image, or of an unknown format"),
        ("page.png", b"<html>404</html>", "no image, or of an unknown format"),
        ("cut.jpg", encoded(picture(), "JPEG")[:300], ""),
        ("cut.png", encoded(picture(), "PNG")[:-20], ""),
        ("vector.bmp", b"%!PS-Adobe-3.0 EPSF-3.0\n", "no image, or of an unknown format"),
    ],
)
def test_files_that_are_not_images_are_named(tmp_path, capsys, name, content, message):
    write_classes(tmp_path / "root", count=5)
    (tmp_path / "root/dog" / name).write_bytes(content)
    place = str(tmp_path / "root")
    sentence = refused(capsys, "image_folder", "--from", place, "--data-dir", str(tmp_path / "data"))
    assert sentence.startswith(f"data.root is {place!r}: 1 image cannot be decoded completely: dog/{name} ({message}")
    assert sentence.endswith("; repair or remove them")
    assert not list(tmp_path.glob("data/**/dataset_info.json"))


def made(**changes):
    return dataclasses.replace(source_of(np.zeros((6, 2, 2, 1), np.uint8)), **changes)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (SourceSplit(("a", "b"), (0, 2)), SourceSplit(("c",), (0,)), "the label of 'b' is 2: it must lie in 0 to 1"),
        (SourceSplit(("a", "b"), (0, -1)), SourceSplit(("c",), (0,)), "the label of 'b' is -1"),
        (SourceSplit(("a", "a"), (0, 1)), SourceSplit(("c",), (0,)), "the image 'a' is listed twice"),
        (SourceSplit(("a", "b"), (0, 1)), SourceSplit(("b",), (0,)), "'b' is listed twice; list it once, in one sp"),
        (SourceSplit(("a", "b"), (0, 1)), SourceSplit((), ()), "there are no images in the split 'test'"),
    ],
)
def test_contradictions_are_refused_before_anything_is_written(tmp_path, train, test, message):
    with pytest.raises(InputError, match=rf"^the test: .*{message}"):
        writing.prepare(made(splits={"train": train, "test": test}), tmp_path / "data", quiet)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("left", ["nothing", "no metadata", "no features", "one file less"])
def test_half_prepared_data_are_reported(tmp_path, capsys, left):
    words = ("digits", "--data-dir", str(tmp_path))
    assert launch.main(["prepare", *words]) == 0
    folder = tmp_path / "stepwise_digits/1.0.0"
    if left == "nothing":
        shutil.rmtree(folder)
        folder.mkdir()
    else:
        lost = {"no metadata": "dataset_info.json", "no features": "features.json"}.get(left, "*-test.*")
        next(folder.glob(lost)).unlink()
    for more in ([], ["--verify"]):
        sentence = refused(capsys, *words, *more)
        assert str(folder) in sentence
        assert "remove the folder and prepare it again" in sentence


def test_data_dir_without_the_right_to_write(tmp_path, capsys, monkeypatch):
    real = os.mkdir

    def mkdir(path, *arguments):
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments)

    monkeypatch.setattr(os, "mkdir", mkdir)
    sentence = refused(capsys, "digits", "--data-dir", str(tmp_path / "data"))
    assert sentence.startswith("data.data_dir: cannot write ")
    assert sentence.endswith("stepwise_digits/1.0.0': Permission denied")


_ON_A_SMALL_DISK = """
import sys
import numpy as np
sys.path[:0] = ["tests/data", "."]
from pathlib import Path
from data_files import source_of
from stepwise_jax.data.prepared import building, writing
from stepwise_jax.data.sources import food101
from stepwise_jax.errors import InputError

disk = Path(sys.argv[1])
quiet = lambda *_: None
# As if other programs used up the space after it was checked.
writing.check_free_space = food101.check_free_space = quiet

def attempt(function, *arguments):
    try:
        function(*arguments)
    except InputError as error:
        print(error)
    print([str(path.relative_to(disk)) for path in sorted(disk.rglob("*")) if path.is_file()])

images = np.random.default_rng(0).integers(0, 256, (60, 300, 300, 3), np.uint8)
attempt(writing.prepare, source_of(images), disk, quiet)
attempt(building.prepare, "food101", Path(sys.argv[2]), disk, quiet)
attempt(writing.prepare, source_of(images[:9]), disk, quiet)
"""


def _mounted(tmp_path: Path, options: str, code: str, *words: str) -> list[str]:
    """Lines that `code` prints where tmp_path/disk is a file system of its own; skips where none may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = f'mount -t tmpfs -o {options} none "$0" || exit 77; exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", inside, str(disk), sys.executable, "-c", code, str(disk), *words]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_full_disk(tmp_path):
    files = food_files() | {"food-101/images/baklava/1.jpg": os.urandom(5 << 20)}
    archive = write_archive(tmp_path / "a.tar.gz", files)
    lines = _mounted(tmp_path, "size=4m", _ON_A_SMALL_DISK, str(archive))
    full = "No space left on device"
    assert lines[0].endswith(f"disk/stepwise_made/1.0.0': {full}, 18 MiB are needed")
    assert lines[1] == "['stepwise_made/.lock']"
    assert lines[2].endswith(f"disk': {full}, 11 MiB are needed")
    assert lines[3] == "['stepwise_made/.lock']"
    # What fits is prepared as if nothing had been.
    assert "stepwise_made/1.0.0/dataset_info.json" in lines[4]


_READ_ONLY = """
import sys
sys.path.insert(0, ".")
import launch
print(launch.main(["prepare", "digits", "--data-dir", sys.argv[1] + "/data"]))
sys.stderr = sys.stdout
launch.main(["prepare", "digits", "--data-dir", sys.argv[1] + "/data"])
"""


def test_read_only_disk(tmp_path):
    lines = _mounted(tmp_path, "ro", _READ_ONLY)
    assert lines[0] == "2"
    assert lines[-1].startswith("error: data.data_dir: cannot write ")
    assert lines[-1].endswith("Read-only file system")
