"""Image files named one by one, by folder or by pattern, and their pixels as network input."""

import glob
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stepwise_jax.data import images
from stepwise_jax.data.source import shorten
from stepwise_jax.data.sources.class_folders import visible_entries

MAX_MIB = 512
"""Size of the largest file that is read as an image."""

_log = logging.getLogger(__name__)


def find_images(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Find the image files that a user names.

    Args:
      arguments: each a file, a folder (all images below it, sorted by path), or a pattern (`*`, `?`, `[...]`, `**`) for
        files and folders; hidden files are skipped unless they are named.

    A file that is named more than once counts once. That, and the other files in a folder, is said in a warning in the
    log.

    Returns:
      The files, in the order of the arguments, and the arguments that match no file.
    """
    left_out: list[str] = []
    found = {argument: _match(argument, left_out) for argument in arguments}
    if left_out:
        count = "1 file" if len(left_out) == 1 else f"{len(left_out)} files"
        _log.warning(f"left out {count} not named like an image that can be read: {shorten(left_out)}")
    paths = _distinct([path for argument in arguments for path in found[argument]])
    return paths, [argument for argument in arguments if not found[argument]]


def _distinct(paths: Sequence[str]) -> list[str]:
    """Each file once; a link in a folder is a file of its own."""
    kept: dict[str, str] = {}
    repeated = []
    for path in paths:
        place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if place in kept:
            repeated.append(path)
        else:
            kept[place] = path
    if repeated:
        count = "1 file that is" if len(repeated) == 1 else f"{len(repeated)} files that are"
        _log.warning(f"classified once: {count} named more than once: {shorten(repeated)}")
    return list(kept.values())


def _match(argument: str, left_out: list[str]) -> list[str]:
    argument = os.path.expanduser(argument)
    # An existing file is no pattern, even if its name contains a bracket.
    matched = [argument] if os.path.lexists(argument) else sorted(glob.glob(argument, recursive=True))
    return [
        path for each in matched for path in (sorted(_walk(each, set(), left_out)) if os.path.isdir(each) else [each])
    ]


def _walk(folder: str, seen: set[str], left_out: list[str]) -> Iterator[str]:
    # Each folder is visited once, because a symbolic link may lead back up.
    real_path = os.path.realpath(folder)
    if real_path in seen:
        return
    seen.add(real_path)
    for entry in visible_entries(Path(folder)):
        path = os.path.join(folder, entry.name)
        if entry.is_dir():
            yield from _walk(path, seen, left_out)
        elif entry.name.lower().endswith(images.SUFFIXES):
            yield path
        else:
            left_out.append(path)


def read_image(path: str, shape: tuple[int, int, int]) -> np.ndarray | str:
    """Read an image as uint8 [height, width, channels], decoded and scaled like a data set's images.

    Must be called within `images.refuse_decompression_bombs()`.
    """
    pixels = np.empty(shape, np.uint8)
    try:
        encoded = _read_file(path)
        images.check(encoded)
        with images.silence_decoders():
            images.decode_into(pixels, encoded)
    except OSError as error:
        return error.strerror or str(error)
    except images.UnreadableImageError as error:
        return str(error)
    return pixels


def _read_file(path: str) -> bytes:
    """The content of a file; a pipe or a device would make the reader wait, or never end."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise images.UnreadableImageError("not a regular file")
    if status.st_size > MAX_MIB << 20:
        raise images.UnreadableImageError(f"a file of {status.st_size / 2**20:.1f} MiB, and at most {MAX_MIB} are read")
    return Path(path).read_bytes()
