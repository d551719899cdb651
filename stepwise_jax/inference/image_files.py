"""Image files that a user names one by one, by folder or by pattern, and their pixels as a network takes them."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stepwise_jax.data import images
from stepwise_jax.data.sources.class_folders import entries


def find(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files that words stand for, in the order of the words, and the words that stand for none.

    Args:
      words: each a file, a folder (all images below it, sorted by path), or a pattern (`*`, `?`, `[...]`, `**`) for
        files and folders; hidden files are passed over unless they are named.
    """
    found = {word: _match(word) for word in words}
    return [path for word in words for path in found[word]], [word for word in words if not found[word]]


def _match(word: str) -> list[str]:
    # A file whose own name holds a bracket is no pattern.
    matched = [word] if os.path.lexists(word) else sorted(glob.glob(word, recursive=True))
    return [path for each in matched for path in (sorted(_below(each, set())) if os.path.isdir(each) else [each])]


def _below(folder: str, seen: set[str]) -> Iterator[str]:
    # Links are followed, once: one that leads back up would have no end.
    place = os.path.realpath(folder)
    if place in seen:
        return
    seen.add(place)
    for entry in entries(Path(folder)):
        path = os.path.join(folder, entry.name)
        if entry.is_dir():
            yield from _below(path, seen)
        elif entry.name.lower().endswith(images.SUFFIXES):
            yield path


def read(path: str, shape: tuple[int, int, int]) -> np.ndarray | str:
    """An image as uint8 [height, width, channels], decoded and scaled as a data set's are, or why it cannot be.

    To be called within `images.bombs_refused()`.
    """
    pixels = np.empty(shape, np.uint8)
    try:
        encoded = Path(path).read_bytes()
        images.check(encoded)
        images.read_into(pixels, encoded)
    except OSError as error:
        return error.strerror or str(error)
    except images.UnreadableImageError as error:
        return str(error)
    return pixels
