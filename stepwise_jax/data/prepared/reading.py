"""Reads the records of an opened data set, and decodes them into memory."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from stepwise_jax.data import images
from stepwise_jax.data.dataset import Dataset, Examples
from stepwise_jax.data.progress import Progress, progress_meter
from stepwise_jax.errors import InputError
from stepwise_jax.runtime.threads import chunk_length, run_ahead

_Example: Any = getattr(tf_example_pb2, "Example")  # noqa: B009 - the class is made at import, unseen by checkers

_MOST_AT_ONCE = 1024


class Records:
    """The undecoded examples of one split, or of consecutive rows of it, from 0 on. May be shared by threads.

    TFDS's records are parsed here, as its own parser of features takes ten times as long.
    """

    def __init__(self, dataset: Dataset, split: str, rows: range | None = None):
        stored = dataset.test_split if split == "test" else split
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        builder = dataset.builder
        features = builder.info.features
        self._source = builder.as_data_source(stored, deserialize_method=raw)
        self._image, self._split, self._bytes = features["image"], split, builder.info.splits[stored].num_bytes
        self._folder = builder.data_dir
        self._rows = range(len(self._source)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def chunks(self) -> list[range]:
        """All rows, in parts that are worth reading at once."""
        count, size = len(self), self._bytes / len(self._source)
        length = chunk_length(size, _MOST_AT_ONCE)
        return [range(start, min(start + length, count)) for start in range(0, count, length)]

    def read(self, rows: Sequence[int]) -> list[tuple[bytes | np.ndarray, int, str]]:
        """Image (encoded bytes, or uint8 [H, W, C]), label and id of each row; the id is the place if there is none."""
        try:
            stored = [self._rows[row] for row in rows]
            records = self._source.__getitems__(stored)
            return [self._parse(record, row) for record, row in zip(records, stored, strict=True)]
        # What array_record raises for a checksum that is wrong, and the parser for a field that is not there.
        except (RuntimeError, LookupError, ValueError) as error:
            raise InputError(f"{str(self._folder)!r} is damaged: remove it and prepare it again ({error})") from error

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


def index(dataset: Dataset, split: str, rows: range | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels, int32 [N], and ids of a split, or of rows of it, in the order on disk, without decoding images."""
    records = Records(dataset, split, rows)
    read = [(label, name) for chunk in records.chunks() for _, label, name in records.read(chunk)]
    return np.array([label for label, _ in read], np.int32), tuple(name for _, name in read)


def image_shape(dataset: Dataset, image_size: int) -> tuple[int, int, int]:
    """Shape [H, W, C] in which images are kept: their own if they share one within image_size x image_size pixels."""
    if dataset.image_shape and max(dataset.image_shape[:2]) <= image_size:
        return dataset.image_shape
    return image_size, image_size, dataset.builder.info.features["image"].shape[2]


def make_read(
    dataset: Dataset, split: str, image_size: int, rows: range | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from rows int [n] to decoded images uint8 [n, H, W, C], that threads may share.

    It gives the images that `load` gives, and raises as it does.
    """
    records, shape = Records(dataset, split, rows), image_shape(dataset, image_size)

    def read(rows: np.ndarray) -> np.ndarray:
        pixels = np.empty((len(rows), *shape), np.uint8)
        for place, (image, _, name) in enumerate(records.read(rows.tolist())):
            _fit(pixels[place], name, image, dataset.image_shape)
        return pixels

    return read


def load(dataset: Dataset, split: str, image_size: int, progress: Progress, rows: range | None = None) -> Examples:
    """A split, or rows of it, decoded into memory; see `stepwise_jax.data.datasets.load`."""
    records = Records(dataset, split, rows)
    pixels = np.empty((len(records), *image_shape(dataset, image_size)), np.uint8)
    labels = np.empty(len(records), np.int32)
    ids: list[str] = []
    with progress_meter(progress, len(records), f"{dataset.name}: decoding {split} images") as meter:
        for future in run_ahead(partial(_decode, records, pixels, labels, dataset.image_shape), records.chunks()):
            names = meter.result(future)
            ids += names
            meter.advance(len(names))
    return Examples(pixels, labels, tuple(ids))


def _decode(
    records: Records, pixels: np.ndarray, labels: np.ndarray, own: tuple[int, ...] | None, rows: range
) -> list[str]:
    """Fills some rows of `pixels` and `labels`; the ids of these rows."""
    names = []
    for row, (image, label, name) in zip(rows, records.read(rows), strict=True):
        _fit(pixels[row], name, image, own)
        labels[row] = label
        names.append(name)
    return names


def _fit(pixels: np.ndarray, name: str, image: bytes | np.ndarray, own: tuple[int, ...] | None) -> None:
    """Fills `pixels` [H, W, C] with an image of any size."""
    if not isinstance(image, bytes):
        pixels[:] = images.resize(image, *pixels.shape[:2])
        return
    try:
        images.read_into(pixels, image, own)
    except images.UnreadableImageError as error:
        raise InputError(
            f"the prepared image {name!r} cannot be decoded: {error}; prepare the data set again"
        ) from error
