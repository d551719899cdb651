"""Seeded, mutated images: each is decoded or refused with a sentence; STEPWISE_FUZZED_IMAGES=2000 tries more."""

import io
import os
import re

import numpy as np
import pytest
from PIL import Image
from test_images import encoded, picture

from stepwise_jax.data import images

COUNT = int(os.environ.get("STEPWISE_FUZZED_IMAGES", "60"))
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
ORIGINALS = [encoded(picture(), form) for form in FORMATS] + [
    encoded(picture().convert("P"), "PNG", transparency=3),
    encoded(picture(), "JPEG", progressive=True),
    encoded(picture(), "TIFF", compression="tiff_lzw"),
    encoded(picture(), "TIFF", compression="jpeg"),
    encoded(picture(), "GIF", save_all=True, append_images=[picture().rotate(90)]),
]


def mutated(number: int) -> bytes:
    """One of the originals with bytes changed, cut, doubled, or taken from another one."""
    draw = np.random.default_rng(number)
    content = bytearray(ORIGINALS[number % len(ORIGINALS)])
    place, length = int(draw.integers(len(content))), int(draw.integers(1, 40))
    kind = draw.integers(6)
    if kind == 0:
        content[place] ^= 1 << int(draw.integers(8))
    elif kind == 1:
        content[place : place + length] = draw.bytes(length)
    elif kind == 2:
        del content[place:]
    elif kind == 3:
        del content[place : place + length]
    elif kind == 4:
        content[place:place] = content[place : place + length]
    else:
        content[place:] = ORIGINALS[int(draw.integers(len(ORIGINALS)))][place:]
    return bytes(content)


def outcome(content: bytes) -> str:
    try:
        pixels = images.decode_whole(content)
    except images.UnreadableImageError as error:
        return str(error)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    target = np.empty((8, 8, 3), np.uint8)
    with images.silence_decoders():
        images.decode_into(target, content)
    return "decoded"


def test_mutated_images_are_decoded_or_refused_with_a_sentence(capfd):
    with images.refuse_decompression_bombs():
        outcomes = [outcome(mutated(number)) for number in range(COUNT)]
    assert "decoded" in outcomes
    assert set(outcomes) != {"decoded"}
    assert all(re.fullmatch(r"[^\n]+", each) for each in outcomes)
    assert capfd.readouterr() == ("", "")


def opens(content: bytes) -> bool:
    """Whether both libraries decode an image at its full size."""
    try:
        with Image.open(io.BytesIO(content), formats=images._FORMATS) as image:
            image.load()
        images.decode(content)
    except Exception:
        return False
    return True


def test_exactly_what_both_libraries_decode_at_full_size_is_taken():
    with images.refuse_decompression_bombs(), images.silence_decoders():
        contents = [mutated(number) for number in range(COUNT)]
        assert [outcome(content) == "decoded" for content in contents] == [opens(content) for content in contents]


@pytest.mark.parametrize("content", ORIGINALS)
def test_originals_are_decoded(content):
    assert outcome(content) == "decoded"
