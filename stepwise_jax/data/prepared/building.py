"""Makes a published data set ready: fetched or taken from the user, and written once."""

import importlib
import logging
from contextlib import closing
from pathlib import Path

from stepwise_jax.data.dataset import Dataset, Sizes
from stepwise_jax.data.prepared import download, opening, writing
from stepwise_jax.data.prepared.locating import prepared_folder
from stepwise_jax.data.progress import Progress
from stepwise_jax.data.sources.catalog import RECIPES, SIZES
from stepwise_jax.errors import InputError

_log = logging.getLogger(__name__)


def make(name: str, given: Path | None, data_dir: Path, progress: Progress) -> None:
    """Prepares a published data set under `data_dir`, unless it is there already.

    Args:
      name: one of `published.RECIPES`.
      given: the file or folder that the user has; None to fetch it.
      data_dir: where prepared data sets are kept.
      progress: called as `progress(done, total, what)`, several times a second.

    Raises:
      InputError: if nothing is given and it cannot be fetched, or what is given is not this data set.
    """
    target = prepared_folder(name, RECIPES[name].version, None, data_dir)
    if target.exists():
        if given is not None:
            _log.warning(f"{name} is prepared already; remove {str(target)!r} to prepare it from {str(given)!r}")
    else:
        _write(name, given, data_dir, progress)
    _compare(name, opening.open_folder(name, target))


def _write(name: str, given: Path | None, data_dir: Path, progress: Progress) -> None:
    path = _given(name, given) if given is not None else _fetched(name, data_dir, progress)
    progress(0, 1, f"{name}: looking through the files")
    module = importlib.import_module(RECIPES[name].module)
    with closing(module.source(name, path, data_dir, progress)) as source:
        writing.prepare(source, data_dir, progress)


def _given(name: str, path: Path) -> Path:
    path = path.expanduser()
    if not path.exists():
        raise InputError(f"--from {str(path)!r}: there is no such file or folder; give {RECIPES[name].takes}")
    return path


def _fetched(name: str, data_dir: Path, progress: Progress) -> Path:
    recipe = RECIPES[name]
    if recipe.download is None:
        raise InputError(f"{name} cannot be fetched: give --from PATH, {recipe.takes}")
    return download.fetch(recipe.download, data_dir / "downloads", progress)


def _compare(name: str, dataset: Dataset) -> None:
    """Warns where the numbers are not the published ones."""
    found, published = sizes(dataset), SIZES[name]
    terms = {"train": "training images", "test": "test images", "num_classes": "classes"}
    pairs = [(term, getattr(found, field), getattr(published, field)) for field, term in terms.items()]
    differing = [f"{count:,} {term} instead of {known:,}" for term, count, known in pairs if count != known]
    if differing:
        _log.warning(f"{name}: not the published numbers, but {', '.join(differing)}")


def sizes(dataset: Dataset) -> Sizes:
    """The numbers of an opened data set."""
    splits = dataset.builder.info.splits
    return Sizes(splits["train"].num_examples, splits[dataset.test_split].num_examples, len(dataset.class_names))
