"""Prepares a published data set: downloaded or taken from the user, and written once."""

import importlib
import logging
from contextlib import closing
from pathlib import Path

from stepwise_jax.data.dataset import Dataset, Sizes
from stepwise_jax.data.prepared import download, opening, writing
from stepwise_jax.data.prepared.locating import prepared_folder
from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.data.sources.catalog import PUBLISHED, PUBLISHED_SIZES
from stepwise_jax.errors import InputError

_log = logging.getLogger(__name__)


def prepare(name: str, path: Path | None, data_dir: Path, progress: ProgressCallback) -> None:
    """Prepare a published data set under `data_dir`, unless it is there already.

    Args:
      name: one of `catalog.PUBLISHED`.
      path: the user's file or folder; None to download it.
      data_dir: the folder of prepared data sets.
      progress: called as `progress(done, total, task)`, several times a second.

    Raises:
      InputError: if there is no path and the data set cannot be downloaded, or the path holds something else.
    """
    target = prepared_folder(name, PUBLISHED[name].version, None, data_dir)
    if target.exists():
        note_unused_source(name, path, target)
    else:
        _write(name, path, data_dir, progress)
    _warn_of_other_sizes(name, opening.open_folder(name, target))


def note_unused_source(name: str, path: Path | None, folder: Path) -> None:
    """Warn if a data set that is prepared in `folder` already was to be prepared from `path`."""
    if path is not None:
        _log.warning(f"{name} is prepared already; remove {str(folder)!r} to prepare it from {str(path)!r}")


def _write(name: str, path: Path | None, data_dir: Path, progress: ProgressCallback) -> None:
    path = _fetched_path(name, data_dir, progress) if path is None else _existing_path(name, path)
    progress(0, 0, f"{name}: scanning the files")
    module = importlib.import_module(PUBLISHED[name].module)
    with closing(module.source(name, path, data_dir, progress)) as source:
        writing.prepare(source, data_dir, progress)


def _existing_path(name: str, path: Path) -> Path:
    path = path.expanduser()
    if not path.exists():
        raise InputError(f"--from {str(path)!r}: there is no such file or folder; give {PUBLISHED[name].takes}")
    if not (path.is_file() or path.is_dir()):
        # A pipe would make this process wait, and a device need not end.
        raise InputError(f"--from {str(path)!r} is neither a file nor a folder: give {PUBLISHED[name].takes}")
    return path


def _fetched_path(name: str, data_dir: Path, progress: ProgressCallback) -> Path:
    published = PUBLISHED[name]
    if published.download is None:
        raise InputError(f"{name} cannot be downloaded: give --from PATH, {published.takes}")
    return download.fetch(published.download, data_dir / "downloads", progress)


def _warn_of_other_sizes(name: str, dataset: Dataset) -> None:
    """Warn if the numbers of images and classes are not the published ones."""
    found, published = stored_sizes(dataset), PUBLISHED_SIZES[name]
    terms = {"train": "training images", "test": "test images", "num_classes": "classes"}
    pairs = [(term, getattr(found, field), getattr(published, field)) for field, term in terms.items()]
    differing = [f"{count:,} {term} instead of {expected:,}" for term, count, expected in pairs if count != expected]
    if differing:
        _log.warning(f"{name}: not the published numbers, but {', '.join(differing)}")


def stored_sizes(dataset: Dataset) -> Sizes:
    """Number of examples, without those left out, and of classes of an opened data set."""
    splits = dataset.builder.info.splits
    train = splits["train"].num_examples - len(dataset.left_out)
    return Sizes(train, splits[dataset.test_split].num_examples, len(dataset.class_names))
