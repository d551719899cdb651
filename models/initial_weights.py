"""Initial weights of a network from a file, and the import of such files into one format."""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .weights.conversion import STEMS, from_torch, to_torch, wanted_shapes
from .weights.files import read_weights
from .weights.safetensors_files import write_safetensors


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
    wanted = wanted_shapes(name, small_images=small_images, width=width, blocks=blocks)
    state_dict = read_weights(path, wanted=wanted)
    with _naming(path):
        _check_colours(name, state_dict)
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


def _check_colours(name: str, state_dict: Mapping[str, Any]) -> None:
    for key in STEMS:
        shape = list(state_dict[key].shape) if key in state_dict else []
        if len(shape) == 4 and shape[1] != 3:
            images = "grey images" if shape[1] == 1 else f"images of {shape[1]} channels"
            raise ValueError(f"{key} is {shape}, for {images}; {name} takes colour images, [{shape[0]}, 3, ...]")


@contextlib.contextmanager
def _naming(path: str | pathlib.Path) -> Iterator[None]:
    """Adds the file's name to an error about its weights."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"weights: {path}: {str(error).removeprefix('weights: ')}") from error


def import_weights(
    name: str,
    source: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    key: str | None = None,
    small_images: bool = False,
    width: int | None = None,
    blocks: Sequence[int] | None = None,
) -> ImportedWeights:
    """Check a PyTorch weight file against the network `name`, and write it to `out` as .safetensors.

    The arrays keep PyTorch's names, in float32, without optimiser state and counters; the header names the network and
    the SHA-256 of the original file.

    Args:
      name: one of `names()`.
      source: see `read_weights`; the file may have no head.
      out: a file; replaced if it exists.
      key: where the weights lie, if the source holds several networks; see `read_weights`.
      small_images: see `build`; so are `width` and `blocks`.
      width: see `build`.
      blocks: see `build`.

    Raises:
      ValueError: if the source cannot be read or does not hold weights of `name`.
      OSError: if `out` cannot be written.
    """
    shape: dict[str, Any] = {"small_images": small_images, "width": width, "blocks": blocks}
    state_dict = read_weights(source, key=key, wanted=wanted_shapes(name, **shape))
    headless = "fc.weight" not in state_dict
    with _naming(source):
        _check_colours(name, state_dict)
        variables = from_torch(name, state_dict, num_classes=2 if headless else None, keep_head=not headless, **shape)
    arrays = to_torch(name, variables)
    if headless:
        arrays = {key: array for key, array in arrays.items() if not key.startswith("fc.")}
    write_safetensors(out, arrays, network=name, source_sha256=_sha256(source))
    learned = sum(array.size for key, array in arrays.items() if "running_" not in key)
    return ImportedWeights(learned, None if headless else len(arrays["fc.weight"]))


def _sha256(path: str | pathlib.Path) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
