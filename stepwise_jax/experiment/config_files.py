"""Configuration files: Python files whose `get_config()` returns an `ExperimentConfig`."""

import contextlib
import difflib
import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.experiment.config import ExperimentConfig

_PACKAGE = "_configurations_"
"""Before the name of the package that stands for a folder of configuration files."""


def load_config(config: str) -> ExperimentConfig:
    """The experiment of a configuration: what its `get_config()` returns, or one of its rows.

    The file is Python code, and is run.

    Args:
      config: a path, or the name of a shipped configuration (`digits`); with `:ROW` one of its `get_rows()`.

    Raises:
      InputError: if there is no such file or row, it does not run, or it returns something else.
    """
    file, row = split_row(config)
    if row:
        rows = load_rows(file)
        if row not in rows:
            raise InputError(f"CONFIG {file!r} has no row {row!r}: {_list_rows(rows)}")
        return rows[row]
    loaded = _call(file, "get_config")
    if not isinstance(loaded, ExperimentConfig):
        raise InputError(f"CONFIG {config!r}: get_config() returned {type(loaded).__name__}, not an ExperimentConfig")
    return loaded


def split_row(config: str) -> tuple[str, str]:
    """The file or name, and the row, of `FILE:ROW`; an empty row where none is named."""
    file, found, row = config.partition(".py:")
    if found:
        return f"{file}.py", row
    name, _, row = config.partition(":")
    return (name, row) if name in shipped_configs() else (config.removesuffix(":"), "")


def load_rows(config: str) -> dict[str, ExperimentConfig]:
    """The experiments of a configuration by name: what its `get_rows()` returns, empty where it has none.

    Raises:
      InputError: as `load_config`.
    """
    rows = _call(split_row(config)[0], "get_rows", optional=True)
    if rows is None:
        return {}
    if not isinstance(rows, dict) or not all(
        isinstance(name, str) and name and isinstance(each, ExperimentConfig) for name, each in rows.items()
    ):
        raise InputError(f"CONFIG {config!r}: get_rows() returned no dictionary of ExperimentConfigs by name")
    return rows


def shipped_configs() -> dict[str, Path]:
    """The configurations that come with stepwise-jax, by name.

    They lie in the package where it is installed, and beside it in a clone.
    """
    package = Path(__file__).parents[1]
    folders = (package / "configs", package.parent / "configs")
    folder = next((folder for folder in folders if (folder / "digits.py").is_file()), None)
    files = sorted(folder.glob("[!_]*.py")) if folder else []
    return {file.stem: file for file in files}


def _list_rows(rows: dict[str, ExperimentConfig]) -> str:
    return f"its rows are {', '.join(rows)}" if rows else "it has no get_rows()"


def _call(config: str, function: str, optional: bool = False) -> Any:
    """What a function of a configuration file returns; None where it is optional and missing."""
    file = _find_file(config)
    try:
        # What a configuration prints would stand before the document of --json.
        with contextlib.redirect_stdout(sys.stderr):
            found = getattr(load_module(file), function, None)
            if callable(found):
                return found()
    except InputError as error:
        where = f"CONFIG {config!r}: {_find_line(error, file)}"
        raise InputError(str(error) if "CONFIG" in str(error) else f"{where}{error}") from error
    except KeyboardInterrupt:
        raise
    # SystemExit among others: whatever a configuration raises is its own error.
    except BaseException as error:
        reason = f"{_find_line(error, file)}{describe_error(error)}{_import_hint(error, file)}"
        raise InputError(f"CONFIG {config!r} does not run: {reason}") from error
    if not optional:
        raise InputError(f"CONFIG {config!r} has no function {function}()")
    return None


def _import_hint(error: BaseException, file: Path) -> str:
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return f"; import the file beside it by `from . import {name}`" if (file.parent / f"{name}.py").is_file() else ""


def _find_file(config: str) -> Path:
    """The file of a path, which goes first, or of a shipped configuration's name."""
    file, shipped = Path(os.path.expanduser(config)), shipped_configs()
    if file.is_file() and file.suffix == ".py":
        return file
    if config in shipped:
        return shipped[config]
    if file.is_file():
        raise InputError(f"CONFIG {config!r} is not a Python file: its name must end with .py")
    if file.is_dir():
        raise InputError(f"CONFIG {config!r} is a folder: name a file in it{_example(file)}")
    raise InputError(f"CONFIG {config!r} is neither a file nor a shipped configuration{_suggest(file, shipped)}")


def _example(folder: Path) -> str:
    files = _files_in(folder)
    return f", such as {files[0]}" if files else " that ends with .py"


def _files_in(folder: Path) -> list[str]:
    return [str(file) for file in sorted(folder.glob("[!_]*.py")) if file.is_file()]


def _suggest(file: Path, shipped: dict[str, Path]) -> str:
    files = _files_in(file.parent if file.parent.is_dir() else Path("configs"))
    near = difflib.get_close_matches(str(file), [*files, *shipped], n=1)
    return f": did you mean {near[0]}?" if near else ""


class _UncachedLoader(importlib.machinery.SourceFileLoader):
    """Compiles a file each time: Python's cache takes an edit of the same size in the same second for the old file."""

    def path_stats(self, path: str) -> NoReturn:
        raise OSError(f"{path} is not cached")


class _NeighbourFinder:
    """Finds `from . import other` of a configuration in its folder."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, leaf = name.rpartition(".")
        if path is None or not package.startswith(_PACKAGE):
            return None
        file = Path(path[0]) / f"{leaf}.py"
        loader = _UncachedLoader(name, str(file))
        return importlib.util.spec_from_file_location(name, file, loader=loader) if file.is_file() else None


# Before Python's own finder, which would take neighbours from its cache.
sys.meta_path.insert(0, _NeighbourFinder())


def load_module(file: Path) -> ModuleType:
    """Runs a file as a module of a package that stands for its folder, so that `from . import other` works in it."""
    package = f"{_PACKAGE}{hashlib.sha256(str(file.parent.resolve()).encode()).hexdigest()[:8]}"
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(file.parent)]
    name = f"{package}.{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file, loader=_UncachedLoader(name, str(file)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass of the file's own looks there for the names in its annotations.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # Otherwise another configuration that imports this one would get the part that ran.
        sys.modules.pop(name, None)
        raise
    return module


def _find_line(error: BaseException, file: Path) -> str:
    """The last line of a configuration on the way to an error, or of a neighbour that it imports: `line 3: `."""
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        places.append((error.filename or "", error.lineno))
    folder = file.parent.resolve()
    near = [each for each in places if each[0].endswith(".py") and Path(each[0]).parent.resolve() == folder]
    if not near:
        return ""
    name, line = near[-1]
    return f"line {line}: " if Path(name).name == file.name else f"line {line} of {name}: "
