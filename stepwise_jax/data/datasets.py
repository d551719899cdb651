"""Data sets: which there are, making one ready once, opening it, and decoding it into memory.

Each data set is one module whose `source` describes it as plain data: those that training itself makes ready are
entered in `_SOURCES`, those that `prepare` fetches or takes from the user in `published.RECIPES`. On disk they are TFDS
data sets (array_record) whose names begin with `stepwise_`, so that none is taken for TFDS's own of the same name. Any
other data set that TFDS has prepared as array_record opens under its TFDS name.
"""

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stepwise_jax.data import splits
from stepwise_jax.data.dataset import Dataset, Examples, Sizes
from stepwise_jax.data.prepared import locating
from stepwise_jax.data.progress import Progress, ProgressMeter
from stepwise_jax.data.sources import digits
from stepwise_jax.data.sources.catalog import RECIPES, SIZES
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig

if TYPE_CHECKING:
    from stepwise_jax.data.source import Source

__all__ = [
    "Dataset",
    "Examples",
    "Sizes",
    "data_dir",
    "image_shape",
    "index",
    "load",
    "make_read",
    "names",
    "open_dataset",
    "prepare",
    "sizes",
    "used_rows",
    "verify",
]

_SOURCES = {"digits": "stepwise_jax.data.sources.digits", "image_folder": "stepwise_jax.data.sources.image_folder"}


def names() -> tuple[str, ...]:
    """The data sets that `prepare` can make."""
    return (*_SOURCES, *RECIPES)


def data_dir(data: DataConfig) -> Path:
    """Where prepared data sets are kept: `data.data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return Path(data.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def sizes(data: DataConfig) -> Sizes:
    """How many examples an experiment trains on and scores, and of how many classes, without preparing anything.

    The published numbers for the data sets of the paper as long as they are not prepared; files are counted for an
    image folder, and the metadata read of whatever is prepared.

    Raises:
      InputError: for an unknown data set, an image folder that cannot be used, or more examples than there are.
    """
    return splits.used(data, _stored_sizes(data))


def used_rows(data: DataConfig, dataset: Dataset, split: str) -> tuple[str, range]:
    """The split on disk and its rows that an experiment uses as "train" or as "test"."""
    from stepwise_jax.data.prepared import building

    return splits.rows(data, split, building.sizes(dataset))


def _stored_sizes(data: DataConfig) -> Sizes:
    if data.name == "digits" or (data.name in SIZES and _prepared(data) is None):
        return SIZES[data.name]
    if data.name in _SOURCES:
        source = _source(data)
        train, test = (len(source.splits[split].ids) for split in ("train", "test"))
        return Sizes(train, test, len(source.class_names))
    from stepwise_jax.data.prepared import building

    return building.sizes(open_dataset(data))


def prepare(data: DataConfig, progress: Progress, fetch: bool = False) -> None:
    """Makes a data set ready under its `data_dir`, once; returns at once if it is.

    A folder of images is prepared anew after a file in it was added, removed or written again.

    Args:
      data: which data set.
      progress: called as `progress(done, total, what)`, several times a second.
      fetch: whether a published data set may be made too, from `data.root` or else by fetching it. Training does not:
        it takes them only as they are prepared.

    Raises:
      InputError: for an unknown data set, images that cannot be read, or a place that cannot be written.
    """
    if data.name not in _SOURCES:
        _prepare_published(data, progress, fetch)
        return
    if data.name == "digits" and _find(data).exists():
        return
    from stepwise_jax.data.prepared import writing

    meter = ProgressMeter(progress, 1, f"{data.name}: looking through the files")
    with ThreadPoolExecutor(1) as pool:
        source = meter.result(pool.submit(_source, data))
    writing.prepare(source, data_dir(data), progress)


def _prepare_published(data: DataConfig, progress: Progress, fetch: bool) -> None:
    given = None if data.root is None else Path(data.root)
    if given and not fetch:
        raise InputError(
            f"data.root is {data.root!r}: only image_folder is trained on from a folder; `python launch.py prepare "
            f"{data.name} --from {data.root}` makes another data set ready, once"
        )
    if fetch and data.name in RECIPES:
        from stepwise_jax.data.prepared import building

        building.make(data.name, given, data_dir(data), progress)
    elif fetch and _prepared(data) is None and _stock(data):
        from stepwise_jax.data.prepared import tfds_builders

        tfds_builders.prepare(data.name, given, data_dir(data))
    open_dataset(data)


def open_dataset(data: DataConfig) -> Dataset:
    """Opens a prepared data set.

    Raises:
      InputError: if it is unknown, not prepared, or cannot be used for classification.
    """
    from stepwise_jax.data.prepared import opening

    folder = _find(data)
    if not folder.exists():
        raise InputError(f"data.name is {data.name!r}: it is not prepared under {str(data_dir(data))!r}")
    return opening.open_folder(data.name, folder)


def verify(dataset: Dataset, progress: Progress) -> None:
    """Compares all images of a data set of ours with the hashes that were recorded when it was prepared.

    Raises:
      InputError: naming what differs, or if nothing is recorded.
    """
    from stepwise_jax.data.prepared import verification

    verification.verify(dataset, progress)


def load(dataset: Dataset, split: str, image_size: int, progress: Progress, rows: range | None = None) -> Examples:
    """A split, or rows of it, decoded into memory, in the order on disk.

    Images of one shape no larger than image_size x image_size stay as they are, for the device to scale up; others
    are scaled here to image_size x image_size pixels.

    Args:
      dataset: an opened data set.
      split: "train" or "test".
      image_size: height and width, in pixels, that the network sees.
      progress: called as `progress(done, total, what)`, several times a second.
      rows: consecutive rows of the split; all by default.
    """
    from stepwise_jax.data.prepared import reading

    return reading.load(dataset, split, image_size, progress, rows)


def index(dataset: Dataset, split: str, rows: range | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, int32 [N], and ids of a split, or of rows of it, in the order on disk, without decoding images."""
    from stepwise_jax.data.prepared import reading

    return reading.index(dataset, split, rows)


def image_shape(dataset: Dataset, image_size: int) -> tuple[int, int, int]:
    """Shape [H, W, C] in which `load` and `make_read` give the images."""
    from stepwise_jax.data.prepared import reading

    return reading.image_shape(dataset, image_size)


def make_read(
    dataset: Dataset, split: str, image_size: int, rows: range | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from rows int [n] to decoded images uint8 [n, H, W, C], those of `load`; threads may share it."""
    from stepwise_jax.data.prepared import reading

    return reading.make_read(dataset, split, image_size, rows)


def _source(data: DataConfig) -> "Source":
    return importlib.import_module(_SOURCES[data.name]).source(data)


def _find(data: DataConfig) -> Path:
    if data.name == "digits":
        # There is but one: a run need not load scikit-learn to find it.
        return locating.prepared_folder(data.name, digits.VERSION, None, data_dir(data))
    if data.name in _SOURCES:
        source = _source(data)
        return locating.prepared_folder(source.name, source.version, source.fingerprint, data_dir(data))
    folder = _prepared(data)
    if folder is None:
        raise _missing(data)
    return folder


def _prepared(data: DataConfig) -> Path | None:
    """Where a data set lies that training does not make: ours of that name if there is one, else TFDS's."""
    folder = data_dir(data)
    if data.name in RECIPES:
        ours = locating.prepared_folder(data.name, RECIPES[data.name].version, None, folder)
        if ours.exists():
            return ours
    return locating.find(data.name, folder)


def _missing(data: DataConfig) -> InputError:
    folder = data_dir(data)
    if data.name not in RECIPES and _stock(data):
        return InputError(
            f"data.name is {data.name!r}: it is not prepared under {str(folder)!r}; prepare it with "
            f"`python launch.py prepare {data.name}`, which needs the extra 'tensorflow'"
        )
    if data.name not in RECIPES:
        return locating.unknown(data.name, folder, names())
    recipe = RECIPES[data.name]
    given = "" if recipe.download else " --from PATH"
    others = locating.other_versions(data.name, folder)
    there = f", only as {', '.join(others)}, which is another version's" if others else ""
    return InputError(
        f"data.name is {data.name!r}: version {recipe.version} is not prepared under {str(folder)!r}{there}; "
        f"prepare it with `python launch.py prepare {data.name}{given}`"
    )


def _stock(data: DataConfig) -> bool:
    from stepwise_jax.data.prepared import tfds_builders

    return tfds_builders.knows(data.name)
