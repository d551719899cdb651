"""Reads the records of an opened data set and decodes them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from stepwise_jax.data import images
from stepwise_jax.data.dataset import Dataset, Examples
from stepwise_jax.data.prepared.records import RecordFiles
from stepwise_jax.data.progress import ProgressCallback, progress_meter
from stepwise_jax.errors import InputError
from stepwise_jax.runtime.threads import chunk_length, map_ahead

_Example: Any = getattr(tf_example_pb2, "Example")  # noqa: B009 - the class is created at import, which type checkers cannot see

_MAX_CHUNK = 1024


class RecordReader:
    """Reads undecoded examples of one split, or of consecutive rows of it, which are numbered from 0. Thread-safe.

    Records are parsed here because TFDS's own feature parser takes ten times as long.
    """

    def __init__(self, dataset: Dataset, split: str, rows: Sequence[int] | None = None):
        stored = dataset.test_split if split == "test" else split
        builder = dataset.builder
        self._files = RecordFiles(builder.info.splits[stored])
        self._image, self._split = builder.info.features["image"], split
        self._bytes = builder.info.splits[stored].num_bytes
        self._folder = builder.data_dir
        self._rows = range(len(self._files)) if rows is None else rows
        self._noisy = bool((builder.info.metadata or {}).get("decoders_speak", True))

    def __len__(self) -> int:
        return len(self._rows)

    def chunks(self) -> list[range]:
        """All rows, in chunks large enough to be read together."""
        count, size = len(self), self._bytes / max(len(self._files), 1)
        length = chunk_length(size, _MAX_CHUNK)
        return [range(start, min(start + length, count)) for start in range(0, count, length)]

    def read(self, rows: Sequence[int]) -> list[tuple[bytes | np.ndarray, int, str]]:
        """Image (encoded bytes, or uint8 [H, W, C]), label and id of each row; without a stored id, SPLIT_ROW."""
        try:
            stored = [int(self._rows[row]) for row in rows]
            return [self._parse(record, row) for record, row in zip(self._files.read(stored), stored, strict=True)]
        # array_record raises these for a wrong checksum, and the parser for a missing field.
        except (RuntimeError, LookupError, ValueError) as error:
            raise InputError(f"{str(self._folder)!r} is damaged: remove it and prepare it again ({error})") from error

    def decode_into(self, pixels: np.ndarray, encoded: bytes, shape: tuple[int, ...] | None) -> None:
        """As `images.decode_into`, without what decoders say about odd images, where the data set has some."""
        with images.silence_decoders() if self._noisy else nullcontext():
            images.decode_into(pixels, encoded, shape)

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


def checked_labels(dataset: Dataset, split: str, labels: np.ndarray) -> np.ndarray:
    """Labels as int32, all of which name a class.

    Raises:
      InputError: with the number of those that do not.
    """
    outside = labels[(labels < 0) | (labels >= len(dataset.class_names))]
    if len(outside):
        raise InputError(
            f"data.name is {dataset.name!r}: {len(outside)} of {len(labels)} labels of the split {split!r} name no "
            f"class, such as {outside[0]}: they must lie in 0 to {len(dataset.class_names) - 1}"
        )
    return labels.astype(np.int32)


def image_shape(dataset: Dataset, image_size: int) -> tuple[int, int, int]:
    """Shape [H, W, C] of decoded images: their own if all share one within image_size x image_size pixels."""
    if dataset.image_shape and max(dataset.image_shape[:2]) <= image_size:
        return dataset.image_shape
    return image_size, image_size, dataset.builder.info.features["image"].shape[2]


def make_image_reader(
    dataset: Dataset, split: str, image_size: int, rows: Sequence[int] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """A thread-safe function from rows int [n] to decoded images uint8 [n, H, W, C].

    It gives the same images as `load` and raises the same errors.
    """
    reader, shape = RecordReader(dataset, split, rows), image_shape(dataset, image_size)

    def read_images(rows: np.ndarray) -> np.ndarray:
        pixels = np.empty((len(rows), *shape), np.uint8)
        for number, (image, _, name) in enumerate(reader.read(rows.tolist())):
            _fill(reader, pixels[number], name, image, dataset.image_shape)
        return pixels

    return read_images


def load(
    dataset: Dataset, split: str, image_size: int, progress: ProgressCallback, rows: Sequence[int] | None = None
) -> Examples:
    """Decode a split, or rows of it, into memory; see `stepwise_jax.data.datasets.load`."""
    reader = RecordReader(dataset, split, rows)
    pixels = np.empty((len(reader), *image_shape(dataset, image_size)), np.uint8)
    labels = np.empty(len(reader), np.int64)
    ids: list[str] = []
    with progress_meter(progress, len(reader), f"{dataset.name}: decoding {split} images") as meter:
        for future in map_ahead(partial(_decode, reader, pixels, labels, dataset.image_shape), reader.chunks()):
            names = meter.wait_for(future)
            ids += names
            meter.advance(len(names))
    return Examples(pixels, checked_labels(dataset, split, labels), tuple(ids))


def _decode(
    reader: RecordReader, pixels: np.ndarray, labels: np.ndarray, shape: tuple[int, ...] | None, rows: range
) -> list[str]:
    """Fill some rows of `pixels` and `labels`; return the ids of these rows."""
    names = []
    for row, (image, label, name) in zip(rows, reader.read(rows), strict=True):
        _fill(reader, pixels[row], name, image, shape)
        labels[row] = label
        names.append(name)
    return names


def _fill(
    reader: RecordReader, pixels: np.ndarray, name: str, image: bytes | np.ndarray, shape: tuple[int, ...] | None
) -> None:
    """Fill `pixels` [H, W, C] with an image of any size, whose own `shape` may be known."""
    if not isinstance(image, bytes):
        pixels[:] = images.resize(image, *pixels.shape[:2])
        return
    try:
        reader.decode_into(pixels, image, shape)
    except images.UnreadableImageError as error:
        raise InputError(
            f"the prepared image {name!r} cannot be decoded: {error}; prepare the data set again"
        ) from error
