"""Files of `torch.save` (.pth, .pt; the zip format and the older one), read without PyTorch: a pickle and storages."""

import io
import math
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .unpickling import MOST_PICKLED, TOO_MUCH, TensorRecord, Unpickler, UnreadableError

_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_PROTOCOL = 1001


class SavedWeights(NamedTuple):
    """The contents of a weight file."""

    content: Any
    """Dicts, lists and plain values; the arrays in it are known by their shape, and read when they are needed."""
    read: Callable[[Any], np.ndarray]
    """The array of one of these."""


def read_torch_zip(file: BinaryIO) -> SavedWeights:
    """The contents of a file of `torch.save` in its zip format, which must stay open while arrays are read."""
    archive = zipfile.ZipFile(file)
    entries = {re.sub(r"^[^/]*/", "", entry.filename): entry for entry in archive.infolist()}
    _check_entries(entries)
    if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
        raise UnreadableError("was written on a big-endian machine")
    content = Unpickler(io.BytesIO(archive.read(entries["data.pkl"]))).load()
    return SavedWeights(content, _reader(lambda key: archive.read(entries[f"data/{key}"])))


def _check_entries(entries: Mapping[str, zipfile.ZipInfo]) -> None:
    if "constants.pkl" in entries:
        raise UnreadableError(
            "is a TorchScript program, not weights; save torch.jit.load(FILE).state_dict() in PyTorch"
        )
    if "data.pkl" not in entries:
        raise UnreadableError("is a zip archive without data.pkl, so not one of torch.save")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise UnreadableError("is a compressed archive, which torch.save does not write")
    if entries["data.pkl"].file_size > MOST_PICKLED:
        raise UnreadableError(TOO_MUCH)


def read_torch_old(file: BinaryIO) -> SavedWeights:
    """The contents of a file of `torch.save` in its older format."""
    if _loaded_or_none(file) != _OLD_MAGIC or _loaded_or_none(file) != _OLD_PROTOCOL:
        raise UnreadableError("is a pickle, but not one of torch.save")
    Unpickler(file).load()
    unpickler = Unpickler(file)
    content = unpickler.load()
    data: dict[str, bytes] = {}
    for key in Unpickler(file).load():
        if type(key) is not str or key not in unpickler.storages:
            raise UnreadableError("is damaged: it holds a storage of no tensor")
        storage = unpickler.storages[key]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.size:
            raise UnreadableError(f"is damaged: a storage holds {count} values where {storage.size} are used")
        data[key] = file.read(count * storage.dtype.itemsize)
    return SavedWeights(content, _reader(data.__getitem__))


def _loaded_or_none(file: BinaryIO) -> Any:
    try:
        return Unpickler(file).load()
    except Exception:  # whatever a foreign pickle does wrong
        return None


def _reader(read: Callable[[str], bytes]) -> Callable[[TensorRecord], np.ndarray]:
    """Reads each storage once, however many tensors lie in it."""
    storages: dict[str, bytes] = {}

    def array(tensor: TensorRecord) -> np.ndarray:
        key = tensor.storage.key
        if key not in storages:
            storages[key] = read(key)
        return _array(tensor, storages[key])

    return array


def _array(tensor: TensorRecord, data: bytes) -> np.ndarray:
    dtype, count = tensor.storage.dtype, math.prod(tensor.shape)
    if not count:
        return np.zeros(tensor.shape, dtype)
    values = np.frombuffer(data, dtype)
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
    if last >= len(values) or count > len(values):
        raise UnreadableError(f"is damaged: {dtype}{list(tensor.shape)} reaches beyond its {len(values)} values")
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
