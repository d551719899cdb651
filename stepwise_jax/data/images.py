"""Encoded images: checking them once, and decoding them to RGB the same way everywhere."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

# Images are decoded side by side; OpenCV's own threads within each would only get in one another's way.
cv2.setNumThreads(1)

# What it would log of damaged images, in the middle of a live display, is told by errors.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# GIF is taken where a file is misnamed .jpg; formats that start other programs (EPS) are not.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


class UnreadableImageError(ValueError):
    """An image cannot be decoded as a whole; the message says why."""


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Within it, images above Pillow's limit of pixels raise, and Pillow's other warnings are silent.

    Set once around all threads, as the warning filters are the process's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def check(encoded: bytes) -> tuple[int, int, int]:
    """The shape (height, width, 3) of an image that decodes as a whole.

    Pillow and OpenCV both decode it: OpenCV before version 5 takes half a JPEG for the whole, Pillow a PNG without its
    end, and what one reads the other may not.

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
    # Pillow's decoders raise nearly anything on damaged data.
    except Exception as error:
        raise UnreadableImageError(str(error) or type(error).__name__) from error
    height, width, channels = decode(encoded).shape
    return height, width, channels


def decode(encoded: bytes, channels: int = 3) -> np.ndarray:
    """An image as uint8 [H, W, channels], turned upright by its EXIF tag.

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


def read_into(pixels: np.ndarray, encoded: bytes, shape: tuple[int, ...] | None = None) -> None:
    """Fills uint8 [height, width, channels] with an encoded image, scaled to that size; `shape` is its own, if known.

    A JPEG at least twice as large is decoded at a half, a quarter or an eighth of its size, by averages that its
    encoding holds, and then scaled bilinearly. Of a photograph, that is half as far from smooth (antialiased) scaling
    as bilinear scaling of the whole image is, and takes less time.

    Raises:
      UnreadableImageError: if nothing can be decoded.
    """
    height, width, channels = pixels.shape
    reduction = _reduction(encoded, max(height, width), shape)
    if reduction == 1:
        pixels[:] = resize(decode(encoded, channels), height, width)
    else:
        reduced = _decode(encoded, channels, _REDUCED[reduction])
        cv2.resize(reduced, (width, height), dst=pixels, interpolation=cv2.INTER_LINEAR)


# IMREAD_REDUCED_GRAYSCALE_n: the flags of a size, to which those of a colour are added.
_REDUCED = {1: 0, 2: 16, 4: 32, 8: 64}


def _reduction(encoded: bytes, side: int, shape: tuple[int, ...] | None) -> int:
    """The largest of 1, 2, 4 and 8 by which a JPEG's shorter side may be divided and not fall below `side`."""
    if not encoded.startswith(b"\xff\xd8"):
        return 1
    try:
        shorter = min(shape[:2] if shape else _size(encoded))
    # A header that Pillow cannot read is OpenCV's to judge.
    except Exception:
        return 1
    return max(reduction for reduction in _REDUCED if shorter >= reduction * side or reduction == 1)


def _size(encoded: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(encoded), formats=("JPEG",)) as image:
        return image.size


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, C] scaled to [height, width, C]: by area when it shrinks, else bilinear."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return scaled.reshape(height, width, image.shape[2])
