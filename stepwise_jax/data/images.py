"""Encoded images: checks them once, and decodes them to RGB the same way everywhere."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

# Images are decoded in parallel; OpenCV's own threads within each image would only compete for the cores.
cv2.setNumThreads(1)

# Damaged images raise errors; OpenCV's log lines about them would break a live display.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# GIF is accepted in a file misnamed .jpg; formats that start other programs (EPS) are not.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


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


def check(encoded: bytes) -> tuple[int, int, int]:
    """Check that an image decodes completely, and return its shape (height, width, 3).

    Both Pillow and OpenCV decode it: OpenCV before version 5 accepts half a JPEG, Pillow accepts a PNG without its end,
    and either may fail on an image that the other reads.

    Raises:
      UnreadableImageError: for truncated, damaged, empty or unknown data, and for decompression bombs.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            image.load()
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError("no image, or of an unknown format" if encoded else "empty file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from error
    # Pillow's decoders raise errors of nearly any type on damaged data.
    except Exception as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error
    height, width, channels = decode(encoded).shape
    return height, width, channels


def decode(encoded: bytes, channels: int = 3) -> np.ndarray:
    """Decode an image to uint8 [H, W, channels], turned upright by its EXIF tag.

    Greyscale, palette, CMYK and 16-bit images become 8-bit RGB; an alpha channel is dropped.

    Args:
      encoded: JPEG, PNG, WebP or BMP.
      channels: 3 for RGB, 1 for grey.

    Raises:
      UnreadableImageError: if nothing can be decoded.
    """
    return _decode(encoded, channels, 0)


def _decode(encoded: bytes, channels: int, size_flag: int) -> np.ndarray:
    flag = size_flag | (cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
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
      encoded: JPEG, PNG, WebP or BMP.
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
