"""Room on a disk, asked for before it is used."""

import shutil
from pathlib import Path

from stepwise_jax.errors import InputError


def check_room(folder: Path, needed: int) -> None:
    """Refuses work that a disk has no room for.

    Args:
      folder: one that exists.
      needed: bytes.

    Raises:
      InputError: with the room that there is and the room that is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"data.data_dir: {str(folder)!r} has {free >> 20} MiB free, {_mebibytes(needed)} are needed")


def _mebibytes(count: int) -> str:
    return f"{-(-count >> 20)} MiB"
