"""From words on a command line to an experiment: the configuration file, and fields replaced by their dotted names."""

import contextlib
import difflib
import importlib.util
import io
import os
import re
import traceback
from collections.abc import Sequence
from pathlib import Path

import tyro

from stepwise_jax.config import ExperimentConfig, flatten
from stepwise_jax.errors import InputError

# Every flag takes a value, `--model.small-images True`, as design and records write it.
_TYRO = (tyro.conf.FlagConversionOff,)


def load_config(path: str) -> ExperimentConfig:
    """What `get_config()` of a configuration file returns. The file is Python code, and is run.

    Raises:
      InputError: if there is no such file, it does not run, or it returns something else.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"CONFIG {path!r} is no file{_nearest_config(file)}")
    if file.suffix != ".py":
        raise InputError(f"CONFIG {path!r} is not a Python file: its name must end with .py")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, "get_config", None)):
            raise InputError(f"CONFIG {path!r} has no function get_config()")
        config = module.get_config()
    except InputError as error:
        raise InputError(f"CONFIG {path!r}: {error}" if "CONFIG" not in str(error) else str(error)) from error
    except (Exception, SystemExit) as error:
        raise InputError(f"CONFIG {path!r} does not run: {_cause(error, file)}") from error
    if not isinstance(config, ExperimentConfig):
        raise InputError(f"CONFIG {path!r}: get_config() returned {type(config).__name__}, not an ExperimentConfig")
    return config


def _nearest_config(file: Path) -> str:
    folder = file.parent if file.parent.is_dir() else Path("configs")
    known = [str(each) for each in folder.glob("*.py") if not each.name.startswith("_")]
    near = difflib.get_close_matches(str(file), known, n=1)
    return f": did you mean {near[0]}?" if near else ""


def _cause(error: BaseException, file: Path) -> str:
    lines = [str(frame.lineno) for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = f"line {lines[-1]}: " if lines else ""
    return f"{line}{type(error).__name__}: {error}"


def parse_fields(config: ExperimentConfig, arguments: Sequence[str], program: str) -> ExperimentConfig:
    """The experiment with the fields that `arguments` name (`--plan.batch-size 16 ...`) replaced and checked.

    Raises:
      InputError: for a name that is no field (with the nearest), or a value of another type or out of range.
    """
    unknown = [word for word in arguments if word.startswith("--") and not _is_field(config, word)]
    if unknown:
        raise InputError(f"{unknown[0]} is no field of the experiment{_nearest_field(config, unknown[0])}")
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told), _wide_terminal():
        try:
            return tyro.cli(ExperimentConfig, args=list(arguments), default=config, prog=program, config=_TYRO)
        except SystemExit as error:
            raise InputError(_first_sentence(told.getvalue())) from error


def print_fields(config: ExperimentConfig, program: str) -> None:
    """Every field with its type, meaning and value, on stdout."""
    with contextlib.suppress(SystemExit):
        tyro.cli(ExperimentConfig, args=["--help"], default=config, prog=program, config=_TYRO)


def _field_name(word: str) -> str:
    return word.removeprefix("--").split("=")[0].replace("-", "_")


def _is_field(config: ExperimentConfig, word: str) -> bool:
    return _field_name(word) in flatten(config)


def _nearest_field(config: ExperimentConfig, word: str) -> str:
    names = list(flatten(config))
    wanted = _field_name(word)
    same_leaf = [name for name in names if name.rsplit(".", 1)[-1] == wanted.rsplit(".", 1)[-1]]
    near = same_leaf or difflib.get_close_matches(wanted, names, n=3)
    return f": did you mean {' or '.join('--' + name for name in near)}?" if near else ": --help lists them"


@contextlib.contextmanager
def _wide_terminal():
    """Tyro draws its complaint in a box as wide as the terminal: wide enough that no sentence is broken."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _first_sentence(box: str) -> str:
    """The first line inside the box that tyro draws around a complaint."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│ ").strip() for line in plain.splitlines() if line.startswith("│")]
    return next((line for line in lines if line and not line.startswith("─")), plain.strip())
