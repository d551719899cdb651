"""Checking and decoding encoded images."""

import io
import os
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from stepwise_jax.data import datasets, images
from stepwise_jax.data.images import UnreadableImageError
from stepwise_jax.experiment.config import DataConfig

HEIGHT, WIDTH = 48, 64
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


def picture() -> Image.Image:
    """Smooth colours, which every encoder keeps to within a few levels."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(np.stack([columns * 3, rows * 5, rows + columns], -1).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("form", FORMATS)
def test_decoded_as_rgb(form):
    data = encoded(picture(), form)
    decoded = images.decode(data)
    assert images.check(data) == decoded.shape == (HEIGHT, WIDTH, 3)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - rgb(picture())).mean() < 3


@pytest.mark.parametrize(
    ("mode", "form"),
    [(mode, "PNG") for mode in ("L", "LA", "P", "1", "RGBA")]
    + [(mode, "JPEG") for mode in ("L", "CMYK")]
    + [("RGBA", "WEBP"), ("P", "BMP"), ("P", "GIF")],
)
def test_other_modes_become_rgb(mode, form):
    image = picture().convert(mode)
    data = encoded(image, form)
    decoded = images.decode(data)
    assert images.check(data) == decoded.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(decoded.astype(int) - rgb(image)).mean() < 3


def test_sixteen_bits_keep_their_range():
    levels = np.tile(np.arange(0, 65536, 1024, dtype=np.uint16), (HEIGHT, 1))
    data = encoded(Image.fromarray(levels), "PNG")
    assert images.check(data) == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(images.decode(data)[..., 0], levels >> 8)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_upright(form, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    data = encoded(picture(), form, exif=tags)
    decoded = images.decode(data)
    assert images.check(data) == decoded.shape == ((HEIGHT, WIDTH, 3) if orientation < 5 else (WIDTH, HEIGHT, 3))
    turn = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    turn |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    upright = picture() if orientation == 1 else picture().transpose(Image.Transpose[turn[orientation]])
    assert np.abs(decoded.astype(int) - rgb(upright)).mean() < 3


def test_one_channel():
    data = encoded(picture().convert("L"), "PNG")
    np.testing.assert_array_equal(images.decode(data, 1)[..., 0], np.asarray(picture().convert("L")))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_truncated_is_found(form, kept):
    data = encoded(picture(), form)
    with pytest.raises(UnreadableImageError):
        images.check(data[: int(len(data) * kept)])


@pytest.mark.parametrize(
    "data", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_files_that_are_not_images_are_found(data):
    for read in (images.check, images.decode):
        with pytest.raises(UnreadableImageError, match=r"."):
            read(data)


@pytest.mark.parametrize("share", [1.5, 3.0])
def test_bombs_are_refused(monkeypatch, share):
    data = encoded(picture(), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(HEIGHT * WIDTH / share))
    with images.refuse_decompression_bombs(), pytest.raises(UnreadableImageError, match="pixels"):
        images.check(data)


def test_pillows_warnings_are_silent():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with images.refuse_decompression_bombs():
            images.check(encoded(picture().convert("P"), "PNG", transparency=bytes(range(256))))
    assert not seen


@pytest.mark.parametrize("size", [(24, 32), (96, 128), (48, 64), (30, 200)])
def test_resized(size):
    image = rgb(picture())
    resized = images.resize(image, *size)
    assert resized.shape == (*size, 3)
    assert np.abs(resized.astype(int).mean((0, 1)) - image.mean((0, 1))).max() < 1
    assert images.resize(image[..., :1], *size).shape == (*size, 1)


# ---- What comes with the pixels


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    data = encoded(picture(), "PNG")
    return data[:33] + chunk(kind, content) + data[33:]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20))),
        (b"tEXt", b"Comment\0" + b"a" * (2 << 20)),
        (b"iTXt", b"Comment\0\0\0\0\0" + b"a" * (12 << 20)),
    ],
)
def test_a_png_with_much_text_is_read(kind, content):
    data = with_chunk(kind, content)
    np.testing.assert_array_equal(images.decode_whole(data), rgb(picture()))
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    images.decode_into(pixels, data)
    np.testing.assert_array_equal(pixels, rgb(picture()))


def odd_images() -> list[bytes]:
    """Images on which libpng and libjpeg comment."""
    jpeg_data = bytearray(encoded(picture(), "JPEG"))
    jpeg_data[-3] ^= 0x55
    return [
        with_chunk(b"iCCP", b"c\0\0" + zlib.compress(bytes(200))),
        with_chunk(b"sBIT", b"\xff\xff\xff\xff"),
        with_chunk(b"eXIf", b"junkjunk"),
        bytes(jpeg_data),
    ]


@pytest.mark.parametrize("number", range(4))
def test_the_decoders_own_words_do_not_reach_the_terminal(capfd, number):
    before = images.decoder_words()
    images.check(odd_images()[number])
    os.write(2, b"Python writes on")
    assert capfd.readouterr() == ("", "Python writes on")
    assert images.decoder_words() > before


def test_pillows_log_lines_are_silent(caplog):
    data, entry = encoded(picture(), "TIFF"), struct.pack("<HHI", 277, 3, 1)
    place = data.index(entry) + len(entry)
    with pytest.raises(UnreadableImageError):
        images.check(data[:place] + struct.pack("<I", 19) + data[place + 4 :])
    assert not caplog.records


def test_they_do_not_in_training_either(tmp_path, capfd):
    for split in ("train", "test"):
        for number, content in enumerate(odd_images()[:3]):
            path = tmp_path / "root" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    data = DataConfig(name="image_folder", root=str(tmp_path / "root"), data_dir=str(tmp_path / "data"))
    datasets.prepare(data, lambda *_: None)
    dataset = datasets.open_dataset(data)
    datasets.load(dataset, "train", 16, lambda *_: None)
    datasets.make_image_reader(dataset, "test", 16)(np.arange(3))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP"])
def test_the_first_of_several_frames_is_read(form):
    other = picture().transpose(Image.Transpose.ROTATE_180)
    first = picture().convert("P") if form == "GIF" else picture()
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(first, form, save_all=True, append_images=[other, other], **options)
    np.testing.assert_array_equal(images.decode_whole(data), rgb(first))


# ---- Reduced decoding


def photograph(side: int) -> np.ndarray:
    """A real photograph, side x side pixels."""
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image("china.jpg")[:, 100:527])
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def jpeg(pixels: np.ndarray, **options) -> bytes:
    return encoded(Image.fromarray(pixels), "JPEG", quality=90, **options)


def error(made: np.ndarray, encoded: bytes) -> float:
    """How far, as a root mean square in grey levels, from Pillow's bilinear scaling, whose triangle widens."""
    with Image.open(io.BytesIO(encoded)) as image:
        smooth = np.asarray(image.convert("RGB").resize(made.shape[1::-1], Image.Resampling.BILINEAR), np.float64)
    return float(np.sqrt(np.square(made - smooth).mean()))


@pytest.mark.parametrize(("side", "target"), [(512, 224), (600, 224), (900, 224), (1000, 64), (3000, 224)])
def test_large_jpegs_are_nearer_to_smooth_scaling_than_plain_bilinear(side, target):
    encoded, pixels = jpeg(photograph(side)), np.empty((target, target, 3), np.uint8)
    images.decode_into(pixels, encoded)
    whole = np.asarray(images.decode(encoded))
    bilinear = cv2.resize(whole, (target, target), interpolation=cv2.INTER_LINEAR)
    assert error(pixels, encoded) < min(8.0, 0.6 * error(bilinear, encoded))


@pytest.mark.parametrize("side", [100, 223, 224, 300, 447])
def test_smaller_jpegs_are_decoded_whole(side):
    encoded, pixels = jpeg(photograph(side)), np.empty((224, 224, 3), np.uint8)
    images.decode_into(pixels, encoded)
    np.testing.assert_array_equal(pixels, images.resize(images.decode(encoded), 224, 224))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_reduced_jpegs_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    half_dark = np.zeros((400, 600, 3), np.uint8)
    half_dark[:200] = 255
    pixels = np.empty((64, 64, 3), np.uint8)
    images.decode_into(pixels, jpeg(half_dark, exif=exif))
    expected = {1: "top", 3: "bottom", 6: "right", 8: "left"}[orientation]
    sides = {"top": pixels[:24], "bottom": pixels[-24:], "left": pixels[:, :24], "right": pixels[:, -24:]}
    assert max(sides, key=lambda side: sides[side].mean()) == expected
    assert sides[expected].min() > 200


@pytest.mark.parametrize("channels", [1, 3])
def test_reduced_jpegs_have_the_requested_channels(channels):
    pixels = np.empty((32, 32, channels), np.uint8)
    images.decode_into(pixels, jpeg(np.full((200, 200, 3), 90, np.uint8)))
    assert np.abs(pixels.astype(int) - 90).max() <= 2
