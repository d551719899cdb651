"""Functions of one's own in an experiment: recorded by name and file, and found again from that record."""

import functools
import hashlib
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.experiment.config_files import load_module

_LIBRARY = __name__.partition(".")[0]


@dataclass(frozen=True)
class FunctionRecord:
    """Where a function or class comes from, as plain JSON data."""

    name: str
    """As in the source: `margin`, or `Outer.inner`."""
    module: str
    file: str | None
    """Absolute path of the source; None for a function of stepwise-jax, or without a file, as in a notebook."""
    sha256: str | None
    """Of the file's bytes."""
    arguments: Mapping[str, Any] | None = None
    """Keyword arguments of a `functools.partial`, or fields of a network; None if they are not JSON data."""
    closure: Mapping[str, Any] | None = None
    """Variables that the function captured where it was made; other functions by their records."""

    @property
    def label(self) -> str:
        """The name with a short hash of everything else that is known of the function."""
        known = {**asdict(self), "file": None}
        return f"{self.name} ({hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]})"


def is_library_function(function: Callable[..., Any]) -> bool:
    """Return whether a function, or what a `functools.partial` calls, is one of stepwise-jax."""
    while isinstance(function, functools.partial):
        function = function.func
    return (getattr(function, "__module__", None) or "").startswith(f"{_LIBRARY}.")


class RecordedFunction:
    """Stands for a function that a run recorded; it is loaded from its file when it is first called."""

    def __init__(self, record: FunctionRecord):
        self.record, self.__name__, self.__module__ = record, record.name, record.module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.load()(*args, **kwargs)

    def load(self) -> Callable[..., Any]:
        """Return the function itself.

        Raises:
          InputError: if its file is gone, has changed, or does not have it at its top level.
        """
        record = self.record
        found: Any = _module(record)
        for name in record.name.split("."):
            found = getattr(found, name, None)
        if not callable(found) or record.arguments is None:
            raise InputError(
                f"{record.name} of {record.file or record.module}, which the run was trained with, cannot be loaded: "
                "it must be at the top level of the file"
            )
        return functools.partial(found, **record.arguments) if record.arguments else found


def _module(record: FunctionRecord) -> Any:
    if record.module.startswith(f"{_LIBRARY}."):
        return importlib.import_module(record.module)
    file = Path(record.file or "")
    if record.file is None or not file.is_file():
        place = record.file or "a file"
        raise InputError(f"{record.name}, which the run was trained with, is not in {place} that can be read")
    if hashlib.sha256(file.read_bytes()).hexdigest() != record.sha256:
        raise InputError(f"{file} has changed since the run was trained with its function {record.name}")
    module = sys.modules.get(record.module)
    if module is not None and getattr(module, "__file__", None) == record.file:
        return module
    try:
        return load_module(file)
    except (Exception, SystemExit) as error:
        raise InputError(f"{record.file} does not run: {describe_error(error)}") from error


def load(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function as it is, or the one that a `RecordedFunction` stands for."""
    return function.load() if isinstance(function, RecordedFunction) else function


def describe_function(function: Callable[..., Any]) -> FunctionRecord:
    """Return the record of a function, a class, or a `functools.partial` of one."""
    if isinstance(function, RecordedFunction):
        return function.record
    inner, arguments = function, {}
    while isinstance(inner, functools.partial):
        inner, arguments = inner.func, {**inner.keywords, **arguments}
    name, source = _find_name(inner)
    module = getattr(source, "__module__", None) or type(source).__module__
    file = None if module.startswith(f"{_LIBRARY}.") else _file(source)
    return FunctionRecord(
        name=name or type(inner).__qualname__,
        module=module,
        file=str(file) if file else None,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest() if file else None,
        arguments=_json(arguments) if name else None,
        closure=_closure(inner),
    )


def _find_name(function: Any) -> tuple[str | None, Any]:
    """The name by which a module has a function, and the function whose file is that module's.

    Beside functions and classes it finds variables that hold a tuple of functions, as a `Metric` is.
    """
    if inspect.isroutine(function) or inspect.isclass(function):
        return function.__qualname__, function
    for part in function if isinstance(function, tuple) else ():
        names = [name for name, value in getattr(part, "__globals__", {}).items() if value is function]
        if names:
            return names[0], part
    return None, function


def _file(function: Any) -> Path | None:
    try:
        file = Path(inspect.getsourcefile(inspect.unwrap(function)) or "")
    except (OSError, TypeError):
        # OSError for a class that was defined in a notebook.
        return None
    return file.resolve() if file.is_file() else None


def _json(arguments: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return json.loads(json.dumps(arguments, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _closure(function: Any) -> dict[str, Any] | None:
    """What a function captured, without which two functions of one source could not be told apart."""
    if isinstance(function, tuple):
        return {str(number): _captured(part) for number, part in enumerate(function)}
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    cells = getattr(function, "__closure__", None) or ()
    return {name: _captured(cell.cell_contents) for name, cell in zip(names, cells, strict=True)} or None


def _captured(value: Any) -> Any:
    if callable(value):
        return asdict(describe_function(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_captured(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def record_to_dict(record: FunctionRecord) -> dict[str, Any]:
    """Return a record as JSON data."""
    return asdict(record)


def record_from_dict(document: Mapping[str, Any]) -> RecordedFunction:
    """Return the function that a document of `record_to_dict` describes, to be loaded when it is called."""
    return RecordedFunction(FunctionRecord(**document))
