"""The pickles in files of `torch.save`, read into records of tensors and plain containers.

A pickle can name any function and have it called. Here no name is ever looked up: those that tensors need make records,
all others are `Placeholder`s, and every opcode that would call or change something is replaced.
"""

import dataclasses
import pickle
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

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
MOST_PICKLED = 2**23
"""Bytes of a pickle beside its tensors: an object takes up to 60 bytes of memory for each of them."""
TOO_MUCH = f"holds more than {MOST_PICKLED // 2**20} MB beside its tensors; save the state_dict alone"
_MOST_ARGUMENTS = 64
"""More than any tensor has; without a limit a few bytes could copy a long tuple many times."""
_HARMFUL_MODULES = {"os", "posix", "nt", "subprocess", "sys", "shutil", "runpy", "importlib", "socket", "pty", "ctypes"}
_HARMFUL_BUILTINS = {"eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint"}


class UnreadableError(Exception):
    """A file cannot be read; the message is a sentence without its subject, the file's name."""


class Placeholder:
    """A name that no tensor needs, or anything made with it. It has no attributes to set and cannot be called."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


@dataclasses.dataclass(frozen=True, slots=True)
class TensorRecord:
    """A tensor whose values lie in a storage, elsewhere in the file."""

    storage: "Storage"
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """The name, the type and the number of values of a storage."""

    key: str
    dtype: np.dtype
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: np.dtype


@dataclasses.dataclass(frozen=True, slots=True)
class _Maker:
    """What stands for a name that tensors need: a call makes a record or a plain container, and nothing else."""

    make: Callable[..., Any]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorRecord:
    numbers = (offset, *_sides(shape), *_sides(strides))
    if any(type(number) is not int or not 0 <= number < 2**63 for number in numbers) or len(shape) != len(strides):
        raise UnreadableError("is damaged: the shape of a tensor is none")
    if not isinstance(storage, Storage):
        raise UnreadableError("is damaged: a tensor has no storage")
    return TensorRecord(storage, offset, shape, strides)


def _sides(shape: Any) -> tuple[Any, ...]:
    if type(shape) is not tuple or len(shape) > _MOST_ARGUMENTS:
        raise UnreadableError("is damaged: the shape of a tensor is none")
    return shape


def _rebuild_from_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    return _made(function, arguments)


def _mapping(pairs: Any = None, *_: Any) -> dict[Any, Any]:
    """A dict; Python 2 wrote an ordered one as a list of pairs, which is used up, so that nothing can copy it again."""
    made: dict[Any, Any] = {}
    if isinstance(pairs, list):
        _set_items(made, [part for pair in pairs for part in (pair if len(pair) == 2 else ())])
        pairs.clear()
    return made


_NAMES: dict[tuple[str, str], Any] = {
    **{("torch", name): _StorageType(np.dtype(kind)) for name, kind in _STORAGE_TYPES.items()},
    ("collections", "OrderedDict"): _Maker(_mapping),
    ("collections", "defaultdict"): _Maker(lambda *_: {}),
    ("torch", "Size"): _Maker(lambda sides=(): _sides(sides)),
    ("torch._utils", "_rebuild_tensor"): _Maker(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Maker(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Maker(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): _Maker(lambda tensor, *_: tensor),
    ("torch._tensor", "_rebuild_from_type_v2"): _Maker(_rebuild_from_type),
}


def _made(function: Any, arguments: Any) -> Any:
    """What a call in a pickle gives: a record of a tensor, a new container, or the placeholder itself."""
    if isinstance(function, Placeholder):
        return function
    if not isinstance(function, _Maker) or not isinstance(arguments, Sequence) or len(arguments) > _MOST_ARGUMENTS:
        raise pickle.UnpicklingError("it calls what cannot be called")
    return function.make(*arguments)


def _set_items(target: Any, items: Sequence[Any]) -> None:
    """Fills a dict of the pickle; entries whose key is no plain value hold no weights, and are left out."""
    if isinstance(target, Placeholder):
        return
    if type(target) is not dict:
        raise pickle.UnpicklingError("it sets items of what has none")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # The hash of a deep tuple overflows the stack, that of a long integer takes long.
        if isinstance(key, str | bytes | float | Placeholder) or (type(key) is int and key.bit_length() <= 64):
            target[key] = value


_PythonUnpickler: Any = vars(pickle)["_Unpickler"]


class Unpickler(_PythonUnpickler):
    """Makes records and plain containers, and calls, imports and changes nothing else.

    It is based on Python's unpickler in Python: the one in C lets a dozen bytes allocate any amount of memory.
    """

    def __init__(self, file: BinaryIO):
        # Python 2 wrote bytes as text: in Latin-1 all of them are letters.
        super().__init__(_BoundedFile(file), encoding="latin-1")
        self.storages: dict[str, Storage] = {}
        """In the old format the storages' bytes follow the pickle, without their types."""
        self._placeholders: dict[tuple[str, str], Placeholder] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name; nothing is imported."""
        if module.split(".")[0] in _HARMFUL_MODULES or (
            module in ("builtins", "__builtin__") and name in _HARMFUL_BUILTINS
        ):
            raise UnreadableError(
                f"is refused: its pickle names {shown(f'{module}.{name}')}, which no tensor needs and which might do "
                "harm; use a file of tensors only, preferably a .safetensors"
            )
        key = (module, name)
        return _NAMES.get(key) or self._placeholders.setdefault(key, Placeholder(f"{module}.{name}"))

    def persistent_load(self, pid: Any) -> Storage:
        """The record of a storage, to which a tensor refers."""
        if type(pid) is not tuple or len(pid) > _MOST_ARGUMENTS:
            raise UnreadableError("is damaged: a tensor refers to no storage")
        kind, storage_type, key, _, count, *view = pid
        if isinstance(storage_type, Placeholder):
            raise UnreadableError(f"holds a tensor as {shown(storage_type.name)}, which cannot be read")
        if kind != "storage" or not isinstance(storage_type, _StorageType) or any(view):
            raise UnreadableError("is damaged: a tensor refers to no storage")
        if type(key) is not str or type(count) is not int or not 0 <= count < 2**63:
            raise UnreadableError("is damaged: a storage has no name or no size")
        storage = Storage(key, storage_type.dtype, count)
        self.storages.setdefault(key, storage)
        return storage

    def get_extension(self, code: int) -> None:
        """Refuses a number in place of a name: its meaning would depend on this process."""
        raise pickle.UnpicklingError(f"it uses the extension {code}")

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(_made(klass, args))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _made(self.stack[-1], arguments)

    def _reduce_with_keywords(self) -> None:
        self.stack.pop()
        self._reduce()

    def _build(self) -> None:
        self.stack.pop()

    def _set_item(self) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        _set_items(self.stack[-1], items)

    def _set_items(self) -> None:
        items = self.pop_mark()
        _set_items(self.stack[-1], items)

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        _set_items(self.stack[-1], items)

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: Iterable[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise pickle.UnpicklingError("it appends to what is no list")

    def _empty_set(self) -> None:
        self.append(Placeholder("set"))

    def _frozen_set(self) -> None:
        self.pop_mark()
        self._empty_set()

    def _bytearray(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    dispatch = {  # noqa: RUF012
        **_PythonUnpickler.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _reduce_with_keywords,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dict,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _appends,
        pickle.EMPTY_SET[0]: _empty_set,
        pickle.FROZENSET[0]: _frozen_set,
        pickle.ADDITEMS[0]: lambda self: self.pop_mark(),
        pickle.BYTEARRAY8[0]: _bytearray,
    }


class _BoundedFile:
    """A file of which no more than a pickle may have is read, whatever sizes it states."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._left = MOST_PICKLED

    def read(self, size: int) -> bytes:
        return self._counted(self._file.read(min(size, self._left + 1)))

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._left + 1))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise UnreadableError(TOO_MUCH)
        return data


def shown(text: Any) -> str:
    """A name from a file as it may stand in a sentence: short, without control characters."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(text)[:81])
    return text if len(text) <= 80 else f"{text[:77]}..."
