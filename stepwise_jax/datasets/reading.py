"""Reads the records of an opened data set, and decodes them into memory."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from stepwise_jax.datasets import images
from stepwise_jax.datasets.ahead import run_ahead
from stepwise_jax.datasets.dataset import Dataset, Examples
from stepwise_jax.datasets.meter import Progress, metered

_Example: Any = getattr(tf_example_pb2, "Example")  # noqa: B009 - the class is made at import, unseen by checkers

_CHUNK = 256
"""Records read by one task of the pool."""


class Records:
    """The undecoded examples of one split, by their place in the order on disk. May be shared by threads.

    TFDS's records are parsed here, as its own parser of features takes ten times as long.
    """

    def __init__(self, dataset: Dataset, split: str):
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        builder: Any = dataset.builder
        features = builder.info.features
        self._source = builder.as_data_source(split, deserialize_method=raw)
        self._image, self._label, self._split = features["image"], features["label"], split

    def __len__(self) -> int:
        return len(self._source)

    def read(self, rows: Sequence[int]) -> list[tuple[bytes | np.ndarray, int, str]]:
        """Image (encoded bytes, or uint8 [H, W, C]), label and id of each row; the id is the place if there is none."""
        records = self._source.__getitems__(list(rows))
        return [self._parse(record, row) for record, row in zip(records, rows, strict=True)]

    def _parse(self, record: bytes, row: int) -> tuple[bytes | np.ndarray, int, str]:
        fields = _Example.FromString(record).features.feature
        name = _text(fields["id"]) if "id" in fields else f"{self._split}_{row}"
        return self._stored_image(fields["image"]), fields["label"].int64_list.value[0], name

    def _stored_image(self, field: Any) -> bytes | np.ndarray:
        if isinstance(self._image, tfds.features.Image):
            return field.bytes_list.value[0]
        encoded = field.bytes_list.value
        return self._image.decode_example_np(encoded[0] if encoded else np.array(field.int64_list.value, np.uint8))


def _text(field: Any) -> str:
    if field.bytes_list.value:
        return field.bytes_list.value[0].decode(errors="backslashreplace")
    return str(field.int64_list.value[0])


def index(dataset: Dataset, split: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, int32 [N], and ids of a split in the order on disk, without decoding images."""
    records = Records(dataset, split)
    read = [(label, name) for rows in _chunks(len(records)) for _, label, name in records.read(rows)]
    return np.array([label for label, _ in read], np.int32), tuple(name for _, name in read)


def load(dataset: Dataset, split: str, image_size: int, progress: Progress) -> Examples:
    """A whole split decoded into memory; see `stepwise_jax.datasets.load`."""
    records = Records(dataset, split)
    pixels = np.empty((len(records), *_loaded_shape(dataset, image_size)), np.uint8)
    labels = np.empty(len(records), np.int32)
    ids: list[str] = []
    what = f"{dataset.name}: decoding {split} images"
    with metered(progress, len(records), what) as meter, ThreadPoolExecutor(images.workers()) as pool:
        for future in run_ahead(pool, partial(_decode, records, pixels, labels), _chunks(len(records))):
            names = meter.result(future)
            ids += names
            meter.advance(len(names))
    return Examples(pixels, labels, tuple(ids))


def _loaded_shape(dataset: Dataset, image_size: int) -> tuple[int, int, int]:
    if dataset.image_shape and max(dataset.image_shape[:2]) <= image_size:
        return dataset.image_shape
    features: Any = dataset.builder.info.features
    return image_size, image_size, features["image"].shape[2]


def _chunks(count: int) -> list[range]:
    return [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]


def _decode(records: Records, pixels: np.ndarray, labels: np.ndarray, rows: range) -> list[str]:
    """Fills some rows of `pixels` and `labels`; the ids of these rows."""
    names = []
    for row, (image, label, name) in zip(rows, records.read(rows), strict=True):
        decoded = images.decode(image, pixels.shape[3]) if isinstance(image, bytes) else image
        pixels[row], labels[row] = images.resize(decoded, *pixels.shape[1:3]), label
        names.append(name)
    return names
