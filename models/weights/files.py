"""Weight files, read into numpy without PyTorch and without executing anything: the search for the weights in them.

A `state_dict` may lie at any depth, beside others and beside anything else, and its names may have prefixes. Its arrays
are recognised by the names and shapes that a network needs.
"""

import collections
import errno
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .pickle_files import SavedWeights, read_torch_old, read_torch_zip
from .safetensors_files import read_safetensors
from .unpickling import Placeholder, TensorRecord, UnreadableError, shown

_DEEPEST = 32
_LONGEST_NAME = 1000
_WRAPPERS = ("module", "model", "net", "network", "backbone", "_orig_mod", "encoder", "encoder_q")
_TOP = "."
"""The key of arrays that are wrapped in nothing."""
_ADVICE = "in PyTorch, save the state_dict() of the network"


def read_weights(
    path: str | pathlib.Path, *, key: str | None = None, wanted: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, np.ndarray]:
    """The `state_dict` in a file: arrays by PyTorch's names.

    A nested `state_dict` is found, such as one under `state_dict`, `model` or `ema`. A prefix of its names, such as
    `module.` or `backbone.`, is removed.

    Args:
      path: a .safetensors file, or a file of `torch.save` (.pth, .pt) in its zip format or the older one.
      key: where the arrays lie, if a file holds several networks: a name on the way to them, such as `model_ema`.
      wanted: shapes of the arrays that a network needs, by name; without them, a `state_dict` with less than half of
        the arrays of the largest is passed over.

    Raises:
      ValueError: if the file is none of these, is damaged, holds no `state_dict`, or holds several that fit.
    """
    path = pathlib.Path(path)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            # A pipe would make this process wait, and a device need not end.
            raise UnreadableError("is a pipe or a device, not a file")
        with path.open("rb") as file:
            saved = _read(file)
            found = _choose(_candidates(saved.content, wanted), key, saved.content)
            return {name: saved.read(leaf) for name, leaf in found.arrays.items()}
    except UnreadableError as error:
        raise ValueError(f"weights: {path} {error}") from error
    except Exception as error:  # any exception of a damaged pickle, zip or header is due to the file
        # Python's zip reader goes to places before the start of a damaged file: that is an invalid argument.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise ValueError(f"weights: {path} cannot be read ({error.strerror or error})") from error
        raise ValueError(f"weights: {path} is damaged ({type(error).__name__}: {shown(error)})") from error


def _read(file: BinaryIO) -> SavedWeights:
    start = file.read(1024)
    file.seek(0)
    if start.startswith(b"PK\x03\x04"):
        return read_torch_zip(file)
    if start[8:9] == b"{":
        return SavedWeights(read_safetensors(file), np.asarray)
    if start.startswith(b"\x80"):
        return read_torch_old(file)
    if start.startswith(b"version https://git-lfs"):
        raise UnreadableError("is a Git LFS pointer, not the weights themselves; fetch them with git lfs pull")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        raise UnreadableError("is a page of a web site, not weights; download the file behind the page")
    raise UnreadableError("is neither a .safetensors file nor one of torch.save")


# The search: a group is a dict with arrays in it, a candidate those of its arrays that share a prefix.


class _Candidate(NamedTuple):
    path: Sequence[str]
    prefix: str
    group: Mapping[str, Any]
    named: int
    """Arrays whose name is wanted; without wanted names, arrays that are not scalars."""
    fits: bool = False
    """Whether all that is wanted is there, with its shape."""

    @property
    def name(self) -> str:
        return ".".join([*self.path, *([self.prefix[:-1]] if self.prefix else [])]) or _TOP

    @property
    def arrays(self) -> dict[str, Any]:
        return {key.removeprefix(self.prefix): leaf for key, leaf in self.group.items() if key.startswith(self.prefix)}


def _candidates(content: Any, wanted: Mapping[str, tuple[int, ...]] | None) -> list[_Candidate]:
    groups = [(path, arrays) for path, arrays in _groups(content) if arrays]
    if wanted is None:
        found = [_unwrapped(path, arrays) for path, arrays in groups]
        most = max((candidate.named for candidate in found), default=0)
        return [candidate._replace(fits=2 * candidate.named >= most) for candidate in found]
    return [candidate for path, arrays in groups for candidate in _prefixed(path, arrays, wanted)]


def _groups(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The arrays of each dict in a dict, with the keys that lead there."""
    waiting: collections.deque[tuple[tuple[str, ...], Any]] = collections.deque([((), content)])
    seen: set[int] = set()
    while waiting:
        path, found = waiting.popleft()
        if not isinstance(found, dict) or id(found) in seen or len(path) > _DEEPEST:
            continue
        seen.add(id(found))
        named = {key: value for key, value in found.items() if isinstance(key, str) and len(key) <= _LONGEST_NAME}
        yield path, {key: value for key, value in named.items() if isinstance(value, np.ndarray | TensorRecord)}
        waiting.extend(((*path, key), value) for key, value in named.items())


def _unwrapped(path: Sequence[str], arrays: dict[str, Any]) -> _Candidate:
    """The arrays of a group without the usual wrappers' names, where all arrays have them."""
    prefix = ""
    keys = [key for key in arrays if key != "n_averaged"]
    while keys and (wrapper := keys[0][len(prefix) :].partition(".")[0]) in _WRAPPERS:
        longer = f"{prefix}{wrapper}."
        if not all(key.startswith(longer) for key in keys):
            break
        prefix = longer
    return _Candidate(path, prefix, arrays, sum(len(leaf.shape) > 0 for leaf in arrays.values()))


def _prefixed(
    path: Sequence[str], arrays: dict[str, Any], wanted: Mapping[str, tuple[int, ...]]
) -> Iterator[_Candidate]:
    """The arrays of a group under each prefix that makes some of them wanted; all of them, if none does."""
    named: collections.Counter[str] = collections.Counter()
    fitting: collections.Counter[str] = collections.Counter()
    most = max(name.count(".") for name in wanted)
    for key, leaf in arrays.items():
        for prefix, name in _splits(key, most):
            named[prefix] += name in wanted
            fitting[prefix] += wanted.get(name) == tuple(leaf.shape)
    for prefix, count in named.items():
        if count or not prefix:
            yield _Candidate(path, prefix, arrays, count, fits=fitting[prefix] == len(wanted))


def _splits(key: str, most: int) -> Iterator[tuple[str, str]]:
    """The prefix of a key, and the rest of it, which has at most so many dots."""
    parts = key.rsplit(".", most + 1)
    for start in range(len(parts)):
        prefix = ".".join(parts[:start])
        yield f"{prefix}." if start else "", ".".join(parts[start:])


def _choose(candidates: Sequence[_Candidate], key: str | None, content: Any) -> _Candidate:
    """The candidate that fits; if none does, the nearest, whose first difference can be named."""
    if not candidates:
        raise UnreadableError(_without_arrays(content))
    fitting = [candidate for candidate in candidates if candidate.fits]
    named = candidates if key is None else _at(key, fitting) or _at(key, candidates)
    if not named:
        names = _listed([candidate.name for candidate in _likely(candidates)])
        raise UnreadableError(f"holds no weights under the key {shown(key)}, but under {names}")
    likely = _likely(named)
    if len(likely) > 1:
        names = [candidate.name for candidate in likely]
        raise UnreadableError(
            f"holds the weights of several networks: {_listed(names)}; choose one with the option --key of "
            f"import-weights, such as --key {shown(names[-1])}, and use the file that it writes"
        )
    return likely[0]


def _likely(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Those that fit, each once; otherwise the nearest alone."""
    fitting = {_contents(candidate): candidate for candidate in reversed(candidates) if candidate.fits}
    nearest = max(candidates, key=lambda candidate: (candidate.named, len(candidate.group)))
    return list(reversed(fitting.values())) or [nearest]


def _contents(candidate: _Candidate) -> frozenset[Any]:
    """Equal for the same tensors in two places."""
    leaves = candidate.arrays.items()
    return frozenset((name, leaf if isinstance(leaf, TensorRecord) else id(leaf)) for name, leaf in leaves)


def _at(key: str, candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """The candidates with this name; otherwise those under it; otherwise those whose name contains it."""
    tests = (
        lambda name: name == key,
        lambda name: name.startswith(f"{key}."),
        lambda name: f".{key}." in f".{name}.",
    )
    found = ([candidate for candidate in candidates if test(candidate.name)] for test in tests)
    return next((some for some in found if some), [])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(shown, names[:4])) + more


def _without_arrays(content: Any) -> str:
    """What a file without any array holds instead."""
    if isinstance(content, TensorRecord | np.ndarray):
        return f"holds one array {list(content.shape)}, not a state_dict; {_ADVICE}"
    if isinstance(content, Placeholder):
        return f"is refused: its pickle is a {shown(content.name)}, which only its own code could open; {_ADVICE}"
    if not isinstance(content, dict | list | tuple | str | bytes | float | int | None):
        return "is damaged: its pickle ends with a part of a tensor"
    if not isinstance(content, dict):
        size = f" of {len(content)} parts" if isinstance(content, list | tuple) else ""
        return f"holds a Python {_kind(content)}{size}, not a state_dict; {_ADVICE}"
    entries = [f"{key} ({_kind(value)})" for key, value in content.items() if isinstance(key, str)]
    return f"holds no state_dict{': ' if entries else ''}{_listed(entries)}; {_ADVICE}"


def _kind(value: Any) -> str:
    return value.name if isinstance(value, Placeholder) else type(value).__name__
