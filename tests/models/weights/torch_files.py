"""Files as `torch.save` writes them, made without PyTorch."""

import collections
import dataclasses
import io
import pickle
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage"}


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function of a module that need not exist."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """What calling it gives, with a state that is set afterwards."""

    name: Name
    arguments: tuple
    state: Any = None


@dataclasses.dataclass(eq=False)
class Storage:
    array: np.ndarray


_PythonPickler: Any = vars(pickle)["_Pickler"]


class Pickler(_PythonPickler):
    """Writes numpy's arrays as PyTorch's tensors."""

    def __init__(self, file, protocol=2):
        super().__init__(file, protocol)
        self.storages: dict[int, Storage] = {}
        """By the identity of their arrays: the same tensor in two places has one storage."""

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        kind = Name("torch", STORAGES[str(obj.array.dtype)])
        return "storage", kind, str(list(self.storages).index(id(obj.array))), "cpu", obj.array.size

    def save_name(self, obj):
        self.write(f"c{obj.module}\n{obj.name}\n".encode())

    def save_call(self, obj):
        self.save(obj.name)
        self.save(obj.arguments)
        self.write(pickle.REDUCE)
        if obj.state is not None:
            self.save(obj.state)
            self.write(pickle.BUILD)

    def save_array(self, obj):
        strides = tuple(stride // obj.itemsize for stride in obj.strides)
        storage = self.storages.setdefault(id(obj), Storage(obj))
        arguments = (storage, 0, obj.shape, strides, False, collections.OrderedDict())
        self.save_call(Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments))

    dispatch = {  # noqa: RUF012
        **_PythonPickler.dispatch,
        Name: save_name,
        Call: save_call,
        np.ndarray: save_array,
    }


def pickled(content: Any, protocol: int = 2) -> tuple[bytes, list[bytes]]:
    """The pickle of it, and the bytes of its storages."""
    data, arrays = _pickled(content, protocol)
    return data, [array.tobytes() for array in arrays]


def _pickled(content: Any, protocol: int) -> tuple[bytes, list[np.ndarray]]:
    file = io.BytesIO()
    pickler = Pickler(file, protocol)
    pickler.dump(content)
    return file.getvalue(), [storage.array for storage in pickler.storages.values()]


def write_zip(path: Path, data: bytes, storages: Sequence[bytes] = (), **others: bytes) -> Path:
    """A file in the zip format around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", b"little")
        for number, content in enumerate(storages):
            archive.writestr(f"archive/data/{number}", content)
        for name, content in others.items():
            archive.writestr(f"archive/{name}", content)
    return path


def save(path: Path, content: Any, protocol: int = 2) -> Path:
    """What `torch.save` writes, in its zip format."""
    return write_zip(path, *pickled(content, protocol))


def save_old(path: Path, content: Any) -> Path:
    """What `torch.save` wrote before PyTorch 1.6."""
    data, arrays = _pickled(content, 2)
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    parts = [pickle.dumps(part, protocol=2) for part in head]
    keys = pickle.dumps([str(number) for number in range(len(arrays))], protocol=2)
    blocks = [struct.pack("<q", array.size) + array.tobytes() for array in arrays]
    path.write_bytes(b"".join([*parts, data, keys, *blocks]))
    return path


def pickle_of(opcodes: bytes) -> bytes:
    """A pickle of these opcodes."""
    return b"\x80\x02" + opcodes + b"."
