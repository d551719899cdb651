"""JSON documents: written atomically, and read with a clear message for anything that is wrong with them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.runtime.files import atomic_write
from stepwise_jax.workdir.files import open_file


def write_json(path: Path, document: Any) -> None:
    """Write sorted, indented JSON atomically: a reader sees the old file or the new one, even after a power cut.

    Numbers that are not finite become null, because JSON cannot express them.
    """
    text = json.dumps(non_finite_to_null(document), allow_nan=False, ensure_ascii=False, indent=2, sort_keys=True)
    with atomic_write(path) as file:
        # A path that is not valid Unicode becomes an escape, which JSON reads back exactly.
        file.write((text + "\n").encode(errors="backslashreplace"))


def read_json(path: Path) -> Any:
    """Read a JSON document.

    Raises:
      InputError: if the file is missing or not JSON.
    """
    text = read_run_file(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is not JSON ({error})") from error


def read_run_file(path: Path) -> bytes:
    """Read the bytes of a run's file.

    Raises:
      InputError: if it is missing or cannot be read.
    """
    try:
        with open_file(path) as file:
            return file.read()
    except FileNotFoundError as error:
        if not path.parent.exists():
            raise InputError(f"there is no folder {path.parent}") from error
        raise InputError(f"there is no {path.name} in {path.parent}: it is no run") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def non_finite_to_null(value: Any) -> Any:
    """Replace infinite and NaN numbers in a document by None, which JSON writes as null."""
    if isinstance(value, Mapping):
        return {name: non_finite_to_null(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [non_finite_to_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
