"""JSON documents: written whole or not at all, and read with a sentence for whatever is wrong with them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.workdir.files import atomic_write


def write_json(path: Path, document: Any) -> None:
    """Writes sorted, indented JSON in one step: a reader sees the old file or the new one, also after a power cut.

    Numbers that are not finite become null, which JSON has no other word for.
    """
    text = json.dumps(finite(document), allow_nan=False, ensure_ascii=False, indent=2, sort_keys=True)
    with atomic_write(path) as file:
        # A path that is no text becomes an escape that JSON reads back as it was.
        file.write((text + "\n").encode(errors="backslashreplace"))


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
      InputError: where the file is missing or no JSON.
    """
    text = read_bytes(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is damaged: it is no JSON ({error})") from error


def read_bytes(path: Path) -> bytes:
    """A file of a run.

    Raises:
      InputError: where it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"there is no {path.name} in {path.parent}: it is no run") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def finite(value: Any) -> Any:
    """The same document with null for numbers that are infinite or NaN."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
