"""Brings a run, or the runs of a study, back from their mirrors to a machine that lacks them."""

import os
import shutil
from pathlib import Path

from stepwise_jax.data.progress import ProgressCallback, progress_meter
from stepwise_jax.errors import InputError, describe_error
from stepwise_jax.workdir.files import CHECKPOINTS
from stepwise_jax.workdir.mirror.store import Manifest, Store


def restore(folder: Path, store: Store, progress: ProgressCallback = lambda *_: None) -> bool:
    """Download the run into a folder that is missing or empty; a folder that holds anything stays as it is.

    Args:
      folder: the workdir.
      store: the place of its mirror.
      progress: called as `progress(done, total, task)`.

    Returns:
      Whether there was a run to download.

    Raises:
      InputError: if the mirror cannot be read, or what arrives is not what its manifest lists.
    """
    if folder.is_dir() and any(folder.iterdir()):
        return False
    try:
        manifest = store.read_manifest()
        if not manifest or not manifest["files"]:
            return False
        _download(manifest, folder, store, progress)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--mirror {store.url} cannot be read: {describe_error(error)}") from error
    return True


def restore_below(folder: Path, store: Store, progress: ProgressCallback = lambda *_: None) -> None:
    """Download each run whose mirror is below a place into the folder of the same path, as `restore`.

    Raises:
      InputError: as `restore`.
    """
    try:
        names = store.mirrors_below()
    except Exception as error:
        raise InputError(f"--mirror {store.url} cannot be read: {describe_error(error)}") from error
    for name in names:
        _check_name(name, store)
        restore(folder / name, store.below(name), progress)


def _download(manifest: Manifest, folder: Path, store: Store, progress: ProgressCallback) -> None:
    # Under another name until it is complete: a download that is killed leaves no half of a run.
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with progress_meter(progress, len(manifest["files"]), f"downloading the run from {store.url}") as meter:
        for name, size in manifest["files"].items():
            _check_name(name, store)
            store.download(name, partial)
            _check_size(partial / name, name, size, store)
            meter.advance()
    os.replace(partial, folder)


def _check_name(name: str, store: Store) -> None:
    """A manifest from elsewhere must not lead out of the folder."""
    if not name or name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise InputError(f"--mirror {store.url} is damaged: its manifest lists {name!r}, which is no file of a run")


def _check_size(path: Path, name: str, size: int, store: Store) -> None:
    """Of checkpoints, which never change; other files may be newer than the manifest."""
    found = path.stat().st_size
    if found != size and name.startswith(f"{CHECKPOINTS}/"):
        raise InputError(f"--mirror {store.url} is damaged: {name} has {found:,} bytes instead of {size:,}")
