"""Initial weights of a network from a file, and the import of such files into one format."""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .safetensors_files import write_safetensors
from .torch_weights import from_torch, to_torch
from .weight_files import read_weights


class ImportedWeights(NamedTuple):
    """The contents of a weight file."""

    parameters: int
    """Learned numbers, including the head's."""
    num_classes: int | None
    """Classes of the head; None if the file has no head."""


def load_weights(
    name: str,
    path: str | pathlib.Path,
    *,
    num_classes: int,
    keep_head: bool,
    seed: int,
    small_images: bool = False,
    width: int | None = None,
    blocks: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Flax variables of the network `name` from a weight file; the arguments are those of `from_torch`.

    Raises:
      ValueError: if the file cannot be read, or does not fit the network; the file is named.
    """
    state_dict = read_weights(path)
    with _naming(path):
        return from_torch(
            name,
            state_dict,
            num_classes=num_classes,
            keep_head=keep_head,
            seed=seed,
            small_images=small_images,
            width=width,
            blocks=blocks,
        )


@contextlib.contextmanager
def _naming(path: str | pathlib.Path) -> Iterator[None]:
    """Adds the file's name to an error about its weights."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"weights: {path}: {str(error).removeprefix('weights: ')}") from error


def import_weights(name: str, source: str | pathlib.Path, out: str | pathlib.Path) -> ImportedWeights:
    """Check a PyTorch weight file against the network `name`, and write it to `out` as .safetensors.

    The arrays keep PyTorch's names, in float32, without optimiser state and counters; the header names the network and
    the SHA-256 of the original file.

    Args:
      name: one of `names()`, at its own width and depth.
      source: see `read_weights`; the file may have no head.
      out: a file; replaced if it exists.

    Raises:
      ValueError: if the source cannot be read or does not hold weights of `name`.
      OSError: if `out` cannot be written.
    """
    state_dict = read_weights(source)
    headless = "fc.weight" not in state_dict
    num_classes = 2 if headless else len(state_dict["fc.weight"])
    with _naming(source):
        variables = from_torch(name, state_dict, num_classes=num_classes, keep_head=not headless)
    arrays = to_torch(name, variables)
    if headless:
        arrays = {key: array for key, array in arrays.items() if not key.startswith("fc.")}
    origin = hashlib.sha256(pathlib.Path(source).read_bytes()).hexdigest()
    write_safetensors(out, arrays, network=name, source_sha256=origin)
    learned = (array.size for key, array in arrays.items() if "running_" not in key)
    return ImportedWeights(sum(learned), None if headless else num_classes)
