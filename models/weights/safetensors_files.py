"""Files of safetensors: the length of a JSON header, the header, the arrays' bytes."""

import json
import math
import os
import pathlib
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from .unpickling import UnreadableError, shown

_TYPES = {
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
_LONGEST_HEADER = 100_000_000


def read_safetensors(file: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file, by name."""
    (length,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(min(length, _LONGEST_HEADER)))
    data = memoryview(file.read())
    header.pop("__metadata__", None)
    return {key: _array(key, entry, data) for key, entry in header.items()}


def _array(key: str, entry: Mapping[str, Any], data: memoryview) -> np.ndarray:
    if entry["dtype"] not in _TYPES:
        raise UnreadableError(f"holds {shown(key)} as {shown(entry['dtype'])}; what can be read is {', '.join(_TYPES)}")
    dtype, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(data) or end - start != math.prod(shape) * dtype.itemsize:
        raise UnreadableError(
            f"is damaged: the {end - start} bytes of {shown(key)} at {start} are no {dtype}{list(shape)}"
        )
    return np.frombuffer(data[start:end], dtype).reshape(shape)


def write_safetensors(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray], **metadata: str) -> None:
    """Write arrays, in the order of their names, as a .safetensors file with `metadata` in its header.

    The file appears complete or not at all: it is written under a temporary name and renamed.

    Raises:
      OSError: if it cannot be written.
    """
    names = {np.dtype(kind): name for name, kind in _TYPES.items()}
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
