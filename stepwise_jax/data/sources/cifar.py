"""CIFAR-10 and CIFAR-100, from either of their two published archives or a folder extracted from one."""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.data.source import Source, SourceSplit
from stepwise_jax.data.sources import archive
from stepwise_jax.errors import InputError

_SHAPE = (32, 32, 3)

_PIXELS = 32 * 32 * 3

CifarBatch = tuple[np.ndarray, np.ndarray]
"""Pixels, uint8 [N, 3072], channel by channel; labels, int64 [N]."""


@dataclass(frozen=True)
class _Layout:
    """One published format: the files below `folder`, and how to read class names and batches from them."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    read_names: Callable[[bytes], tuple[str, ...]]
    read_batch: Callable[[bytes], CifarBatch]

    def files(self) -> tuple[str, ...]:
        return (*self.train, *self.test, self.names)


def source(name: str, path: Path, scratch: Path, progress: ProgressCallback) -> Source:
    """cifar10 or cifar100: uint8 [32, 32, 3] with the keys and ids of TFDS, so that train[:k] is TFDS's train[:k].

    Args:
      name: "cifar10" or "cifar100".
      path: the binary or the python archive (.tar.gz), or a folder extracted from one.
      scratch: unused; everything is held in memory.
      progress: unused; reading takes a second or two.

    Raises:
      InputError: if the path holds something else, or files are missing or damaged.
    """
    del scratch, progress
    layout, files = _find_layout(name, path)
    class_names = _parse(path, layout, layout.names, layout.read_names, files)
    batches = {
        split: _concatenate([_parse(path, layout, file, layout.read_batch, files) for file in names])
        for split, names in (("train", layout.train), ("test", layout.test))
    }
    return Source(
        name=name,
        version="1.0.0",
        class_names=class_names,
        origin=repr(str(path)),
        splits={split: _split(split, labels) for split, (_, labels) in batches.items()},
        read=lambda example: _image(batches, example),
        array_shape=_SHAPE,
        size_bytes=sum(pixels.nbytes for pixels, _ in batches.values()),
    )


def _split(split: str, labels: np.ndarray) -> SourceSplit:
    ids = tuple(f"{split}_{row:05d}" for row in range(len(labels)))
    return SourceSplit(ids, tuple(labels.tolist()), tuple(map(str, range(len(labels)))))


def _image(batches: Mapping[str, CifarBatch], example: str) -> np.ndarray:
    split, row = example.split("_")
    return np.ascontiguousarray(batches[split][0][int(row)].reshape(3, 32, 32).transpose(1, 2, 0))


def _find_layout(name: str, path: Path) -> tuple[_Layout, Mapping[str, bytes]]:
    """The layout of the files at `path`, and their contents by name."""
    found = _from_folder(name, path) if path.is_dir() else _from_archive(name, path)
    for layout in _LAYOUTS[name]:
        if layout in found:
            missing = [file for file in layout.files() if file not in found[layout]]
            if missing:
                raise InputError(f"{str(path)!r} lacks {layout.folder}/{missing[0]}: the copy of {name} is incomplete")
            return layout, found[layout]
    known = " or ".join(f"{layout.folder}/" for layout in _LAYOUTS[name])
    raise InputError(f"{str(path)!r} is not {name}: it must hold {known}, as the published archives do")


def _from_archive(name: str, path: Path) -> dict[_Layout, dict[str, bytes]]:
    members = {f"{layout.folder}/{file}": (layout, file) for layout in _LAYOUTS[name] for file in layout.files()}
    found: dict[_Layout, dict[str, bytes]] = {}
    for member, content in archive.files(path, members.__contains__):
        layout, file = members[member]
        found.setdefault(layout, {})[file] = content
    return found


def _from_folder(name: str, path: Path) -> dict[_Layout, dict[str, bytes]]:
    found: dict[_Layout, dict[str, bytes]] = {}
    for layout in _LAYOUTS[name]:
        folder = path / layout.folder if (path / layout.folder).is_dir() else path
        present = [file for file in layout.files() if (folder / file).is_file()]
        if present:
            try:
                found[layout] = {file: (folder / file).read_bytes() for file in present}
            except OSError as error:
                raise InputError(f"{str(folder)!r} cannot be read: {error}") from error
    return found


def _parse(path: Path, layout: _Layout, file: str, parse: Callable[[bytes], Any], files: Mapping[str, bytes]) -> Any:
    try:
        return parse(files[file])
    # Unpickling anything but the expected data raises errors of nearly any type.
    except Exception as error:
        raise InputError(f"{str(path)!r}: {layout.folder}/{file} is damaged: {error}") from error


def _concatenate(batches: list[CifarBatch]) -> CifarBatch:
    return np.concatenate([pixels for pixels, _ in batches]), np.concatenate([labels for _, labels in batches])


def _binary_names(content: bytes) -> tuple[str, ...]:
    return tuple(line.strip() for line in content.decode().splitlines() if line.strip())


def _binary_batch(content: bytes, labels: int) -> CifarBatch:
    """Parse records of `labels` label bytes, the last of which is the class, and 3,072 pixel bytes."""
    length = labels + _PIXELS
    if not content or len(content) % length:
        raise ValueError(f"{len(content):,} bytes are not a whole number of records of {length:,} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    return records[:, labels:], records[:, labels - 1].astype(np.int64)


def _python_names(content: bytes, key: str) -> tuple[str, ...]:
    return tuple(_text(name) for name in _unpickled(content)[key])


def _python_batch(content: bytes, key: str) -> CifarBatch:
    fields = _unpickled(content)
    pixels, labels = fields["data"].values(), fields[key]
    if pixels.shape != (len(labels), _PIXELS) or not all(type(label) is int for label in labels):
        raise ValueError(f"it must hold {_PIXELS:,} pixels and one integer label for each image")
    return pixels, np.array(labels, np.int64)


def _unpickled(content: bytes) -> dict[str, Any]:
    fields = _CifarUnpickler(io.BytesIO(content), encoding="bytes").load()
    return {_text(key): value for key, value in fields.items()}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class _Array:
    """Replaces a NumPy array within a pickle, and keeps the state that the pickle stores for it."""

    def __init__(self, *arguments: Any):
        del arguments
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def values(self) -> np.ndarray:
        """The bytes of the array, in its shape."""
        _, shape, _, fortran_order, content = self._state
        if not isinstance(content, bytes):
            raise ValueError("its array does not hold bytes")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran_order else "C")


def _encoded(text: str, encoding: str) -> bytes:
    del encoding
    return text.encode("latin1")


_REPLACEMENTS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Array,
    # Python 3 writes bytes this way in protocol 2.
    ("_codecs", "encode"): _encoded,
}


class _CifarUnpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Reads a pickle of plain data and arrays, and raises if it names anything else.

    A pickle can call whatever it names, so it reaches none of Python's functions, and none of NumPy's, which would
    allocate any size. The fast unpickler in C allocates any size too, hence the one written in Python.
    """

    def find_class(self, module: str, name: str) -> Any:
        """The replacement for a class or function."""
        if (module, name) not in _REPLACEMENTS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no CIFAR file does")
        return _REPLACEMENTS[module, name]


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))

_LAYOUTS = {
    "cifar10": (
        _Layout(
            "cifar-10-batches-bin",
            tuple(f"{name}.bin" for name in _BATCHES),
            ("test_batch.bin",),
            "batches.meta.txt",
            _binary_names,
            lambda content: _binary_batch(content, 1),
        ),
        _Layout(
            "cifar-10-batches-py",
            _BATCHES,
            ("test_batch",),
            "batches.meta",
            lambda content: _python_names(content, "label_names"),
            lambda content: _python_batch(content, "labels"),
        ),
    ),
    "cifar100": (
        _Layout(
            "cifar-100-binary",
            ("train.bin",),
            ("test.bin",),
            "fine_label_names.txt",
            _binary_names,
            lambda content: _binary_batch(content, 2),
        ),
        _Layout(
            "cifar-100-python",
            ("train",),
            ("test",),
            "meta",
            lambda content: _python_names(content, "fine_label_names"),
            lambda content: _python_batch(content, "fine_labels"),
        ),
    ),
}
