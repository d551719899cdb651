"""Data sets: which ones exist, and how to prepare, open and load one.

Each data set is one module whose `source` function describes it as plain data: those that training itself prepares are
listed in `_SOURCES`, those that the `prepare` command downloads or takes from the user in `catalog.PUBLISHED`. On disk
they are TFDS data sets (array_record) whose names start with `stepwise_`, so that none is confused with TFDS's own of
the same name. Any other data set that TFDS has prepared as array_record opens under its TFDS name.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stepwise_jax.data import splits
from stepwise_jax.data.dataset import Dataset, Examples, Sizes
from stepwise_jax.data.prepared import locating
from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.data.source import scanned
from stepwise_jax.data.sources import digits
from stepwise_jax.data.sources.catalog import PUBLISHED, PUBLISHED_SIZES
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.formatting import program_name

if TYPE_CHECKING:
    from stepwise_jax.data.source import Source

__all__ = [
    "Dataset",
    "Examples",
    "Sizes",
    "data_dir",
    "image_shape",
    "labels_and_ids",
    "load",
    "make_image_reader",
    "names",
    "open_dataset",
    "prepare",
    "shared_images",
    "sizes",
    "split_hashes",
    "used_rows",
    "verify",
]

_SOURCES = {"digits": "stepwise_jax.data.sources.digits", "image_folder": "stepwise_jax.data.sources.image_folder"}


def names() -> tuple[str, ...]:
    """The data sets that `prepare` can make."""
    return (*_SOURCES, *PUBLISHED)


def data_dir(data: DataConfig) -> Path:
    """The folder of prepared data sets: `data.data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return locating.data_dir(data)


def sizes(data: DataConfig) -> Sizes:
    """Number of examples that an experiment trains on and scores, and of classes.

    The paper's data sets have their published numbers until they are prepared. An image folder's files are counted;
    for whatever is prepared, the metadata is read. Nothing is prepared, except a folder some of whose images are left
    out by data.unreadable or data.duplicates.

    Raises:
      InputError: for an unknown data set, an unusable or unused image folder, or more examples than there are.
    """
    stored = _stored_sizes(data)
    locating.check_root(data, _SOURCES)
    return splits.used_sizes(data, stored)


def used_rows(data: DataConfig, dataset: Dataset, split: str) -> tuple[str, Sequence[int]]:
    """The split on disk, and its rows, that an experiment uses as "train" or as "test"."""
    from stepwise_jax.data.prepared import building

    stored, rows = splits.select_rows(data, split, building.stored_sizes(dataset))
    if stored == "train" and dataset.left_out:
        kept = np.setdiff1d(np.arange(dataset.builder.info.splits["train"].num_examples), dataset.left_out)
        return stored, kept[np.asarray(rows)].tolist()
    return stored, rows


def shared_images(data: DataConfig, dataset: Dataset) -> tuple[int, int]:
    """How many of the scored images have the pixels of an image that is trained on, and how many are scored."""
    from stepwise_jax.data.prepared import duplicates

    (_, train), (split, scored) = (used_rows(data, dataset, split) for split in ("train", "test"))
    return duplicates.count_shared(dataset, train, scored, split), len(scored)


def _stored_sizes(data: DataConfig) -> Sizes:
    if data.name in _SOURCES and (data.unreadable == "skip" or data.duplicates == "drop"):
        # Only the images themselves tell how many of them are used.
        prepare(data, lambda *_: None)
    elif data.name == "digits" or data.name in _SOURCES or _find_prepared(data) is None:
        return _counted_sizes(data)
    from stepwise_jax.data.prepared import building

    return building.stored_sizes(open_dataset(data))


def _counted_sizes(data: DataConfig) -> Sizes:
    """Sizes of a data set that need not be prepared."""
    if data.name in PUBLISHED_SIZES and data.duplicates != "drop":
        return PUBLISHED_SIZES[data.name]
    if data.name not in _SOURCES:
        raise _not_prepared_error(data)
    source = _source(data)
    train, test = (len(source.splits[split].ids) for split in ("train", "test"))
    return Sizes(train, test, len(source.class_names))


def prepare(data: DataConfig, progress: ProgressCallback, fetch: bool = False) -> None:
    """Prepare a data set under its `data_dir`; return at once if it is prepared already.

    An image folder is prepared again after a file in it was added, removed or rewritten.

    Args:
      data: which data set.
      progress: called as `progress(done, total, task)`, several times a second.
      fetch: whether to make a published data set too, from `data.root` or else by downloading it. Training does not:
        it only uses published data sets that are already prepared.

    Raises:
      InputError: for an unknown data set, unreadable or refused images, or a `data_dir` that cannot be written.
    """
    if not fetch:
        locating.check_root(data, _SOURCES)
    if data.name not in _SOURCES:
        _prepare_published(data, progress, fetch)
        return
    if data.name == "digits" and _prepared_folder(data).exists():
        return
    from stepwise_jax.data.prepared import writing

    source = _source(data, progress)
    source.find_fingerprint(progress)
    writing.prepare(source, data_dir(data), progress)
    if data.duplicates == "refuse":
        open_dataset(data)


def _prepare_published(data: DataConfig, progress: ProgressCallback, fetch: bool) -> None:
    from stepwise_jax.data.prepared import building, tfds_builders

    path = None if data.root is None else locating.local_path("data.root", data.root)
    if fetch and data.name in PUBLISHED:
        building.prepare(data.name, path, data_dir(data), progress)
    elif folder := _find_prepared(data):
        building.note_unused_source(data.name, path, folder)
    elif fetch and _has_tfds_builder(data):
        tfds_builders.prepare(data.name, path, data_dir(data))
    dataset = open_dataset(data)
    if fetch and data.name not in PUBLISHED:
        from stepwise_jax.data.prepared import labels

        labels.check_all(dataset)


def open_dataset(data: DataConfig) -> Dataset:
    """Open a prepared data set.

    Raises:
      InputError: if it is unknown, not prepared, or cannot be used for classification.
    """
    from stepwise_jax.data.prepared import duplicates, labels, opening

    folder = _prepared_folder(data)
    if not folder.exists():
        source, changed = (f" --from {data.root}", ", or its images have changed since") if data.root else ("", "")
        raise InputError(
            f"data.name is {data.name!r}: it is not prepared under {str(data_dir(data))!r}{changed}; prepare it with "
            f"`{program_name()} prepare {data.name}{source}`"
        )
    dataset = opening.open_folder(data.name, folder)
    if data.unreadable == "refuse":
        opening.check_unreadable(dataset)
    if data.validation_fraction == 0:
        dataset = labels.choose_test_split(dataset)
    return duplicates.choose_images(dataset, data.duplicates)


def verify(dataset: Dataset, progress: ProgressCallback) -> None:
    """Compare all images of a data set that `prepare` wrote with the hashes recorded then.

    Raises:
      InputError: naming the differing splits, or if no hash is recorded.
    """
    from stepwise_jax.data.prepared import verification

    verification.verify(dataset, progress)


def load(
    dataset: Dataset, split: str, image_size: int, progress: ProgressCallback, rows: Sequence[int] | None = None
) -> Examples:
    """Decode a split, or rows of it, into memory, in the order on disk.

    Images of one shape no larger than image_size x image_size stay as they are, for the device to scale up; others
    are scaled here to image_size x image_size pixels.

    Args:
      dataset: an opened data set.
      split: "train" or "test".
      image_size: height and width, in pixels, of the network's input.
      progress: called as `progress(done, total, task)`, several times a second.
      rows: consecutive rows of the split; all by default.
    """
    from stepwise_jax.data.prepared import reading

    return reading.load(dataset, split, image_size, progress, rows)


def labels_and_ids(
    dataset: Dataset, split: str, rows: Sequence[int] | None = None, progress: ProgressCallback = lambda *_: None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, int32 [N], and ids of a split, or of rows of it, in the order on disk, without decoding images."""
    from stepwise_jax.data.prepared import index

    return index.labels_and_ids(dataset, split, rows, progress)


def split_hashes(dataset: Dataset, split: str, progress: ProgressCallback = lambda *_: None) -> dict[str, str]:
    """Hashes of all images and all labels of a split, in the order on disk, by their names in `subsets.json`."""
    from stepwise_jax.data.prepared import index

    found = index.find_index(dataset, split, progress)
    return {"content_sha256": found.content_sha256, "labels_sha256": found.labels_sha256}


def image_shape(dataset: Dataset, image_size: int) -> tuple[int, int, int]:
    """Shape [H, W, C] of the images from `load` and from the function that `make_image_reader` returns."""
    from stepwise_jax.data.prepared import reading

    return reading.image_shape(dataset, image_size)


def make_image_reader(
    dataset: Dataset, split: str, image_size: int, rows: Sequence[int] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A thread-safe function from rows int [n] to decoded images uint8 [n, H, W, C], the same as from `load`."""
    from stepwise_jax.data.prepared import reading

    return reading.make_image_reader(dataset, split, image_size, rows)


def _source(data: DataConfig, progress: ProgressCallback = lambda *_: None) -> "Source":
    return scanned(data, lambda: importlib.import_module(_SOURCES[data.name]).source(data, progress))


def _prepared_folder(data: DataConfig) -> Path:
    """The folder of the prepared data set; it may not exist yet for a data set that training prepares itself."""
    if data.name == "digits":
        # The digits never vary, so a run need not load scikit-learn to find them.
        return locating.prepared_folder(data.name, digits.VERSION, None, data_dir(data))
    if data.name in _SOURCES:
        source = _source(data)
        return locating.prepared_folder(source.name, source.version, source.fingerprint, data_dir(data))
    folder = _find_prepared(data)
    if folder is None:
        raise _not_prepared_error(data)
    return folder


def _find_prepared(data: DataConfig) -> Path | None:
    """The folder of a data set that training does not prepare: ours of that name if it exists, else TFDS's."""
    folder = data_dir(data)
    if data.name in PUBLISHED:
        ours = locating.prepared_folder(data.name, PUBLISHED[data.name].version, None, folder)
        if ours.exists():
            return ours
    return locating.find(data.name, folder)


def _not_prepared_error(data: DataConfig) -> InputError:
    folder = data_dir(data)
    if data.name not in PUBLISHED and not _has_tfds_builder(data):
        return locating.unknown_dataset_error(data.name, folder, names())
    return locating.not_prepared_error(data.name, folder, PUBLISHED.get(data.name))


def _has_tfds_builder(data: DataConfig) -> bool:
    from stepwise_jax.data.prepared import tfds_builders

    return tfds_builders.has_builder(data.name)
