"""Configuration files: Python files whose `get_config()` returns an `ExperimentConfig`."""

import contextlib
import difflib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.experiment.config import ExperimentConfig


def load_config(path: str) -> ExperimentConfig:
    """What `get_config()` of a configuration file returns, or with `FILE:ROW` one of its `get_rows()`.

    The file is Python code, and is run.

    Raises:
      InputError: if there is no such file or row, it does not run, or it returns something else.
    """
    file, row = split_row(path)
    if row:
        rows = load_rows(file)
        if row not in rows:
            raise InputError(f"CONFIG {file!r} has no row {row!r}: {_listed(rows)}")
        return rows[row]
    config = _call(file, "get_config")
    if not isinstance(config, ExperimentConfig):
        raise InputError(f"CONFIG {path!r}: get_config() returned {type(config).__name__}, not an ExperimentConfig")
    return config


def split_row(path: str) -> tuple[str, str]:
    """The file and the row of `FILE:ROW`; an empty row where none is named."""
    file, found, row = path.partition(".py:")
    return (f"{file}.py", row) if found else (path.removesuffix(":"), "")


def load_rows(path: str) -> dict[str, ExperimentConfig]:
    """The experiments of a configuration file by name: what its `get_rows()` returns, none where it has none.

    Raises:
      InputError: as `load_config`.
    """
    rows = _call(split_row(path)[0], "get_rows", optional=True)
    if rows is None:
        return {}
    if not isinstance(rows, dict) or not all(
        isinstance(name, str) and name and isinstance(each, ExperimentConfig) for name, each in rows.items()
    ):
        raise InputError(f"CONFIG {path!r}: get_rows() returned no dictionary of ExperimentConfigs by name")
    return rows


def _listed(rows: dict[str, ExperimentConfig]) -> str:
    return f"its rows are {', '.join(rows)}" if rows else "it has no get_rows()"


def _call(path: str, function: str, optional: bool = False) -> Any:
    """What a function of a configuration file returns; None where it is optional and not there."""
    file = Path(path)
    if not file.is_file():
        raise InputError(f"CONFIG {path!r} is no file{_nearest_config(file)}")
    if file.suffix != ".py":
        raise InputError(f"CONFIG {path!r} is not a Python file: its name must end with .py")
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where a dataclass of the file's own looks for the names in its annotations.
    sys.modules[spec.name] = module
    try:
        # What a configuration prints would stand before the document of --json.
        with contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
            if callable(getattr(module, function, None)):
                return getattr(module, function)()
    except InputError as error:
        raise InputError(f"CONFIG {path!r}: {error}" if "CONFIG" not in str(error) else str(error)) from error
    except (Exception, SystemExit) as error:
        raise InputError(f"CONFIG {path!r} does not run: {_cause(error, file)}") from error
    if not optional:
        raise InputError(f"CONFIG {path!r} has no function {function}()")
    return None


def _nearest_config(file: Path) -> str:
    folder = file.parent if file.parent.is_dir() else Path("configs")
    known = [str(each) for each in folder.glob("*.py") if not each.name.startswith("_")]
    near = difflib.get_close_matches(str(file), known, n=1)
    return f": did you mean {near[0]}?" if near else ""


def _cause(error: BaseException, file: Path) -> str:
    lines = [str(frame.lineno) for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = f"line {lines[-1]}: " if lines else ""
    return f"{line}{describe_error(error)}"
