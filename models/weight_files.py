"""Weight files, read into numpy without PyTorch and without executing anything: .safetensors, and .pth/.pt old and new.

A .pth file holds a pickle, and a pickle can name any function to be called. Here it may name only the parts of tensors:
`_Unpickler` returns stand-ins for those names and refuses every other.
"""

import collections
import io
import json
import math
import os
import pathlib
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

_SAFETENSORS_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_STORAGE_TYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_PROTOCOL = 1001
_NESTED = ("state_dict", "model", "model_state_dict")


def read_weights(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The `state_dict` in a file: arrays by PyTorch's names.

    A `state_dict` nested under `state_dict` or `model` is found, and a `module.` before every name is removed.

    Args:
      path: a .safetensors file, or a file of `torch.save` (.pth, .pt) in its zip format or the older one.

    Raises:
      ValueError: if the file is none of these, is damaged, or names anything beyond tensors.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            found = _read(file)
    except OSError as error:
        raise ValueError(f"weights: {path} cannot be read ({error.strerror})") from error
    except _UnreadableError as error:
        raise ValueError(f"weights: {path} {error}") from error
    except Exception as error:  # any exception of a damaged pickle, zip or header is due to the file
        raise ValueError(f"weights: {path} is damaged ({type(error).__name__}: {error})") from error
    return _state_dict(found, path)


def write_safetensors(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray], **metadata: str) -> None:
    """Write arrays, in the order of their names, as a .safetensors file with `metadata` in its header.

    The file appears complete or not at all: it is written under a temporary name and renamed.

    Raises:
      OSError: if it cannot be written.
    """
    names = {np.dtype(kind): name for name, kind in _SAFETENSORS_TYPES.items()}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for key in sorted(arrays):
        start, end = end, end + arrays[key].nbytes
        header[key] = {
            "dtype": names[arrays[key].dtype],
            "shape": list(arrays[key].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for key in sorted(arrays):
                file.write(np.ascontiguousarray(arrays[key]).tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _UnreadableError(Exception):
    """A file cannot be read; the message is a sentence without its subject, the file's name."""


def _read(file: BinaryIO) -> Any:
    start = file.read(16)
    file.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(file)
    if start[8:9] == b"{":
        return _read_safetensors(file)
    if start.startswith(b"\x80"):
        return _read_old(file)
    raise _UnreadableError("is neither a .safetensors file nor one of torch.save")


def _state_dict(found: Any, path: pathlib.Path) -> dict[str, np.ndarray]:
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    arrays = {key: value for key, value in found.items() if isinstance(value, np.ndarray)} if found else {}
    if not arrays:
        raise ValueError(f"weights: {path} holds no state_dict; it must be saved bare or under 'state_dict'")
    prefixed = all(str(key).startswith("module.") for key in arrays)
    return {str(key).removeprefix("module.") if prefixed else str(key): value for key, value in arrays.items()}


# safetensors: the length of a JSON header, the header, the arrays' bytes.


def _read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(min(length, 100_000_000)))
    data = file.read()
    header.pop("__metadata__", None)
    return {key: _safetensor(key, entry, data) for key, entry in header.items()}


def _safetensor(key: str, entry: Mapping[str, Any], data: bytes) -> np.ndarray:
    if entry["dtype"] not in _SAFETENSORS_TYPES:
        raise _UnreadableError(f"holds {key} as {entry['dtype']}; what can be read is {', '.join(_SAFETENSORS_TYPES)}")
    dtype, shape = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]]), tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(data) or end - start != math.prod(shape) * dtype.itemsize:
        raise _UnreadableError(f"is damaged: the {end - start} bytes of {key} at {start} are no {dtype}{list(shape)}")
    return np.frombuffer(data[start:end], dtype).reshape(shape)


# torch.save: a pickle of tensors that refer to storages, and the storages' bytes.


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StandIn:
    """A stand-in for a name that a pickle may use.

    It has no `__dict__`, so that no pickle can change it; a call makes a record and nothing else.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"a pickle may not set {name}")


class _StorageType(NamedTuple):
    dtype: np.dtype


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _allowed() -> dict[tuple[str, str], Any]:
    types = {("torch", name): _StorageType(np.dtype(kind)) for name, kind in _STORAGE_TYPES.items()}
    return types | {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch", "Size"): _StandIn(lambda sides=(): tuple(sides)),
        ("torch._utils", "_rebuild_tensor"): _StandIn(_rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): _StandIn(_rebuild_tensor),
        ("torch._utils", "_rebuild_parameter"): _StandIn(lambda tensor, *_: tensor),
    }


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Makes `_Tensor` records and plain containers, and calls nothing from the file.

    It is based on Python's unpickler in Python: the one in C lets a dozen bytes allocate any amount of memory.
    """

    def find_class(self, module: str, name: str) -> Any:
        allowed = _allowed()
        if (module, name) not in allowed:
            raise _UnreadableError(
                f"is refused: its pickle names {module}.{name}, which no tensor needs and which might do harm; "
                "use a file of tensors only, preferably a .safetensors"
            )
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _, count, *view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(view):
            raise _UnreadableError(f"is damaged: {pid!r} is no storage")
        return _Storage(str(key), storage_type.dtype, int(count))


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = {re.sub(r"^[^/]*/", "", entry.filename): entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in names.values()):
            raise _UnreadableError("is a compressed archive, which torch.save does not write")
        if "data.pkl" not in names:
            raise _UnreadableError("is a zip archive without data.pkl, so not one of torch.save")
        if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
            raise _UnreadableError("was written on a big-endian machine")
        found = _Unpickler(io.BytesIO(archive.read(names["data.pkl"]))).load()
        return _materialise(found, lambda storage: archive.read(names[f"data/{storage.key}"]))


def _read_old(file: BinaryIO) -> Any:
    if _Unpickler(file).load() != _OLD_MAGIC or _Unpickler(file).load() != _OLD_PROTOCOL:
        raise _UnreadableError("is a pickle, but not one of torch.save")
    _Unpickler(file).load()
    unpickler = _RecordingUnpickler(file)
    found = unpickler.load()
    data = {}
    for key in _Unpickler(file).load():
        storage = unpickler.storages[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.size:
            raise _UnreadableError(f"is damaged: storage {key} holds {count} values where {storage.size} are used")
        data[storage.key] = file.read(count * storage.dtype.itemsize)
    return _materialise(found, lambda storage: data[storage.key])


class _RecordingUnpickler(_Unpickler):
    """Records the storages: in the old format their bytes follow the pickle, without their types."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        storage = super().persistent_load(pid)
        return self.storages.setdefault(storage.key, storage)


def _materialise(found: Any, read: Callable[[_Storage], bytes]) -> Any:
    """The same containers with arrays in place of tensor records."""
    if isinstance(found, _Tensor):
        return _array(found, read(found.storage))
    if isinstance(found, Mapping):
        return {key: _materialise(value, read) for key, value in found.items()}
    return found


def _array(tensor: _Tensor, data: bytes) -> np.ndarray:
    values = np.frombuffer(data, tensor.storage.dtype)
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if len(tensor.shape) != len(tensor.strides) or any(not isinstance(n, int) or n < 0 for n in numbers):
        raise _UnreadableError(f"is damaged: {tensor} is no array")
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
    if math.prod(tensor.shape) and last >= len(values):
        raise _UnreadableError(f"is damaged: {tensor} reaches beyond its {len(values)} values")
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
