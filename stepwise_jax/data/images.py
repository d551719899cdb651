"""Encoded images: checks them once, and decodes them to RGB the same way everywhere."""

import ctypes
import functools
import hashlib
import io
import logging
import os
import platform
import struct
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)

# Images are decoded in parallel; OpenCV's own threads within each image would only compete for the cores.
cv2.setNumThreads(1)

# Damaged images raise errors; log lines about them by OpenCV and Pillow would break a live display.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
logging.getLogger("PIL").setLevel(logging.CRITICAL)

# What a file is counts, not how it is named. Formats that start other programs (EPS) are not read.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PNG_TEXT = (b"tEXt", b"zTXt", b"iTXt")

# libpng refuses an image with a longer chunk of text.
_PNG_LONG_TEXT = 8_000_000


class UnreadableImageError(ValueError):
    """An image cannot be decoded completely; the message says why."""


@contextmanager
def refuse_decompression_bombs() -> Iterator[None]:
    """Raise for images above Pillow's pixel limit, and silence Pillow's other warnings.

    Enter it once around all threads: warning filters belong to the process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


class _DecoderOutput:
    """What C libraries within the decoders write to `stderr`: led into an unnamed file while any thread decodes.

    libpng, libjpeg and libtiff comment on odd images there. The C library's variable is replaced, not the file
    descriptor, so that Python and a live display keep writing to the terminal. Elsewhere than in glibc and on macOS
    the variable may not be written, and nothing is led away.
    """

    def __init__(self):
        self._lock, self._depth, self._saved = threading.Lock(), 0, None
        if sys.platform != "darwin" and platform.libc_ver()[0] != "glibc":
            raise OSError("the variable stderr cannot be replaced")
        library = ctypes.CDLL(None)
        library.fdopen.restype = ctypes.c_void_p
        self._variable = ctypes.c_void_p.in_dll(library, "__stderrp" if sys.platform == "darwin" else "stderr")
        with tempfile.TemporaryFile() as file:
            self._handle = os.dup(file.fileno())
        self._stream = library.fdopen(self._handle, b"a")
        library.setbuf(ctypes.c_void_p(self._stream), None)

    def enter(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._saved, self._variable.value = self._variable.value, self._stream
            self._depth += 1

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._variable.value = self._saved

    def size(self) -> int:
        return os.fstat(self._handle).st_size


@functools.cache
def _decoder_output() -> _DecoderOutput | None:
    try:
        return _DecoderOutput()
    except (OSError, ValueError, AttributeError):
        return None


@contextmanager
def silence_decoders() -> Iterator[None]:
    """Keep what the decoders' C libraries say about odd images off the terminal; other threads' Python output stays."""
    output = _decoder_output()
    if output is None:
        yield
        return
    output.enter()
    try:
        yield
    finally:
        output.leave()


def decoder_words() -> int:
    """How much, in bytes, the decoders have said so far within `silence_decoders`."""
    output = _decoder_output()
    return 0 if output is None else output.size()


def check(encoded: bytes) -> tuple[int, int, int]:
    """Check that an image decodes completely, and return its shape (height, width, 3); raises as `decode_whole`."""
    height, width, channels = decode_whole(encoded).shape
    return height, width, channels


def decode_whole(encoded: bytes) -> np.ndarray:
    """Check that an image decodes completely, and decode it to uint8 [H, W, 3]; of several frames, the first.

    Both Pillow and OpenCV decode it: OpenCV before version 5 accepts half a JPEG, Pillow accepts a PNG without its end,
    and either may fail on an image that the other reads.

    Raises:
      UnreadableImageError: for truncated, damaged, empty or unknown data, and for decompression bombs.
    """
    with silence_decoders():
        _check_with_pillow(encoded)
        return decode(encoded)


def _check_with_pillow(encoded: bytes) -> None:
    try:
        # Pillow refuses a sound PNG for much text that comes with it.
        with Image.open(io.BytesIO(_without_text(encoded, 0)), formats=_FORMATS) as image:
            # A JPEG is still read to its end, but at an eighth of its size and without colours, which takes less time.
            image.draft("L", (1, 1))
            image.load()
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError("no image, or of an unknown format" if encoded else "empty file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from error
    # Pillow's decoders raise errors of nearly any type on damaged data.
    except Exception as error:
        raise UnreadableImageError(" ".join(str(error).split()) or type(error).__name__) from error


def _without_text(encoded: bytes, longest: int) -> bytes:
    """A PNG without its chunks of text above `longest` bytes, which do not change its pixels; other images as given."""
    if not encoded.startswith(_PNG_SIGNATURE) or len(encoded) <= longest:
        return encoded
    kept, place, left_out = [_PNG_SIGNATURE], len(_PNG_SIGNATURE), False
    while place + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, place)
        if kind in _PNG_TEXT and length > longest:
            left_out = True
        else:
            kept.append(encoded[place : place + length + 12])
        place += length + 12
    return b"".join([*kept, encoded[place:]]) if left_out else encoded


def hash_pixels(image: np.ndarray) -> bytes:
    """A hash, 16 bytes, of the shape and the pixels of an image, uint8 [H, W, C]."""
    shape = repr(image.shape).encode()
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, key=shape).digest()


def decode(encoded: bytes, channels: int = 3) -> np.ndarray:
    """Decode an image to uint8 [H, W, channels], turned upright by its EXIF tag.

    Greyscale, palette, CMYK and 16-bit images become 8-bit RGB; an alpha channel is dropped.

    Args:
      encoded: in any of the formats of `SUFFIXES`.
      channels: 3 for RGB, 1 for grey.

    Raises:
      UnreadableImageError: if nothing can be decoded.
    """
    return _decode(encoded, channels, 0)


def _decode(encoded: bytes, channels: int, size_flag: int) -> np.ndarray:
    flag = size_flag | (cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB)
    try:
        image = cv2.imdecode(np.frombuffer(_without_text(encoded, _PNG_LONG_TEXT), np.uint8), flag)
    except cv2.error as error:
        raise UnreadableImageError("truncated, damaged, or no image") from error
    if image is None:
        raise UnreadableImageError("truncated, damaged, or no image")
    return image.reshape(*image.shape[:2], channels)


def decode_into(pixels: np.ndarray, encoded: bytes, shape: tuple[int, ...] | None = None) -> None:
    """Decode an image into `pixels`, scaled to their size.

    A JPEG at least twice as large is decoded at a half, a quarter or an eighth of its size, from averages that its
    encoding holds, and then scaled bilinearly. For a photograph, the result differs half as much from smooth
    (antialiased) scaling as bilinear scaling of the whole image does, and takes less time.

    Args:
      pixels: uint8 [height, width, channels], filled with the image.
      encoded: in any of the formats of `SUFFIXES`.
      shape: the encoded image's own shape, if known.

    Raises:
      UnreadableImageError: if nothing can be decoded.
    """
    height, width, channels = pixels.shape
    reduction = _reduction(encoded, max(height, width), shape)
    if reduction == 1:
        pixels[:] = resize(decode(encoded, channels), height, width)
    else:
        reduced = _decode(encoded, channels, _REDUCTION_FLAGS[reduction])
        cv2.resize(reduced, (width, height), dst=pixels, interpolation=cv2.INTER_LINEAR)


# Flags of IMREAD_REDUCTION_FLAGS_GRAYSCALE_n by n; the colour flags are added to them.
_REDUCTION_FLAGS = {1: 0, 2: 16, 4: 32, 8: 64}


def _reduction(encoded: bytes, side: int, shape: tuple[int, ...] | None) -> int:
    """The largest of 1, 2, 4 and 8 that divides a JPEG's shorter side without it falling below `side`."""
    if not encoded.startswith(b"\xff\xd8"):
        return 1
    try:
        shorter = min(shape[:2] if shape else _size(encoded))
    # OpenCV may still decode an image whose header Pillow cannot read.
    except Exception:
        return 1
    return max(reduction for reduction in _REDUCTION_FLAGS if shorter >= reduction * side or reduction == 1)


def _size(encoded: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as image:
        return image.size


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale uint8 [H, W, C] to [height, width, C]: by area if neither side grows, else bilinearly."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return scaled.reshape(height, width, image.shape[2])
