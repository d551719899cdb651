"""Labels that name no class, as TFDS stores them (-1) where the labels of test images are not public."""

import dataclasses
import functools
import logging

import numpy as np

from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.prepared.index import labels_and_ids
from stepwise_jax.data.prepared.reading import RecordReader
from stepwise_jax.errors import InputError

_log = logging.getLogger(__name__)

_SAMPLED_ROWS = 64


def choose_test_split(dataset: Dataset) -> Dataset:
    """The data set with its labelled validation images as test images where its test images have no labels.

    Raises:
      InputError: where there are no other labelled images.
    """
    if not _is_unlabelled(dataset):
        return dataset
    validation = dataclasses.replace(dataset, test_split="validation")
    if dataset.test_split == "test" and "validation" in dataset.builder.info.splits and not _is_unlabelled(validation):
        _warn_once(f"{dataset.name}: the test images have no labels; the images of 'validation' are scored instead")
        return validation
    raise InputError(
        f"data.name is {dataset.name!r}: its {dataset.test_split} images have no labels, and there are no labelled "
        "validation images: set data.validation_fraction to hold out training images"
    )


def _is_unlabelled(dataset: Dataset) -> bool:
    """Whether none of some rows, at even intervals in the test images, has a label within the classes."""
    if (dataset.builder.info.metadata or {}).get("content_sha256"):
        # `prepare` wrote the data set, and refuses such labels.
        return False
    reader = RecordReader(dataset, "test")
    rows = np.unique(np.linspace(0, len(reader) - 1, _SAMPLED_ROWS).astype(int)) if len(reader) else []
    labels = [label for _, label, _ in reader.read(list(map(int, rows)))]
    return bool(labels) and not any(0 <= label < len(dataset.class_names) for label in labels)


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning(message)


def check_all(dataset: Dataset) -> None:
    """Read the labels of all training and test images of a data set that TFDS prepared.

    Raises:
      InputError: with the number of labels that name no class.
    """
    for split in ("train", "test"):
        labels_and_ids(dataset, split)
    splits = dataset.builder.info.splits
    if dataset.test_split == "test" and "validation" in splits:
        count = splits["validation"].num_examples
        _warn_once(f"{dataset.name}: its {count} images of 'validation' are neither trained on nor scored")
