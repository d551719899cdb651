"""Writes a data set as TFDS array_record files: once, completely or not at all, and without TensorFlow.

TFDS's own generator of examples shuffles through TensorFlow's file system once a split is larger than a gigabyte. So
the builder here writes shard by shard, in the order that TFDS would give: by the MD5 hash of split name and key. TFDS
also encodes each example in the thread that writes, while the other cores wait. Here the threads that check the images
make the records, too, always with the same bytes.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder
from tensorflow_datasets.proto import tf_example_pb2

from stepwise_jax.data import images
from stepwise_jax.data.disk import check_free_space, file_lock, is_disk_error, write_error
from stepwise_jax.data.prepared import index
from stepwise_jax.data.prepared.duplicates import DuplicateFinder
from stepwise_jax.data.prepared.locating import NAMESPACE, prepared_folder
from stepwise_jax.data.prepared.records import open_reader, system_cause
from stepwise_jax.data.progress import ProgressCallback, ProgressMeter, progress_meter
from stepwise_jax.data.source import Source, SourceSplit, check_source, missing_class_notes, unreadable_sentence
from stepwise_jax.errors import InputError
from stepwise_jax.runtime.threads import chunk_length, map_ahead

_FILE_FORMAT = tfds.core.FileFormat.ARRAY_RECORD

_SHARD_BYTES = 128 << 20

_MAX_CHUNK = 32

_log = logging.getLogger(__name__)


class _CheckedImage(NamedTuple):
    """An image that can be read: its record, its shape, the SHA-256 of its content, and a hash of its pixels."""

    record: bytes
    shape: tuple[int, ...]
    content: bytes
    pixels: bytes


_ReadResult = _CheckedImage | str
"""A checked image, or the reason why it cannot be read."""


def prepare(source: Source, data_dir: Path, progress: ProgressCallback) -> None:
    """Write a source under `data_dir`, unless it is there already.

    If several processes prepare the same source, one does the work and the others wait. The next process removes
    the files of one that was killed.

    Raises:
      InputError: for a source that contradicts itself, images that cannot be decoded completely, a `data_dir` that
        cannot be written, or a full disk.
    """
    target = prepared_folder(source.name, source.version, source.fingerprint, data_dir)
    if target.exists():
        return
    check_source(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        waiting = partial(progress, 0, 0, f"{source.name}: waiting for another process to prepare it")
        with file_lock(target.parent / ".lock", waiting) as held:
            if not target.exists():
                if held:
                    _remove_incomplete(target.parent)
                check_free_space(data_dir, _needed_bytes(source))
                _write(source, data_dir, progress)
    except OSError as error:
        raise write_error(target, error, _needed_bytes(source)) from error
    # array_record's writer raises this type whatever the cause.
    except RuntimeError as error:
        if is_disk_error(error):
            raise write_error(target, error, _needed_bytes(source)) from error
        raise


def _needed_bytes(source: Source) -> int:
    """Approximate bytes on disk that preparing takes."""
    return int(source.total_bytes * 1.05) + (1 << 20)


def _remove_incomplete(parent: Path) -> None:
    for path in parent.glob("incomplete.*"):
        shutil.rmtree(path, ignore_errors=True)


def _write(source: Source, data_dir: Path, progress: ProgressCallback) -> None:
    for note in (*source.notes, *missing_class_notes(source)):
        _log.warning(note)
    total = sum(len(split.ids) for split in source.splits.values())
    with (
        progress_meter(progress, total, f"{source.name}: checking and storing images") as meter,
        images.refuse_decompression_bombs(),
    ):
        builder = _Builder(source, data_dir, meter)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    for note in builder.findings():
        _log.warning(note)


class _Builder(FileReaderBuilder, skip_registration=True):
    """A source as a TFDS builder, used once to prepare it; opening only needs `tfds.builder_from_directory`."""

    # Nothing is downloaded, and searching for checksums beside the code needs a package that TFDS does not install.
    code_path = None
    url_infos = None

    def __init__(self, source: Source, data_dir: Path, meter: ProgressMeter):
        self.name = NAMESPACE + source.name  # pyright: ignore[reportAttributeAccessIssue]
        self.VERSION = tfds.core.Version(source.version)
        self._source, self._meter = source, meter
        self._shapes: set[tuple[int, ...]] = set()
        self._unreadable: list[str] = []
        self._digests = {name: hashlib.sha256() for name in source.splits}
        self._written: dict[str, list[int]] = {name: [] for name in source.splits}
        self._duplicates, self._words = DuplicateFinder(), images.decoder_words()
        self._metadata = tfds.core.MetadataDict(class_names=source.class_names)
        config = tfds.core.BuilderConfig(name=source.fingerprint) if source.fingerprint else None
        super().__init__(data_dir=data_dir, config=config, file_format=_FILE_FORMAT)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = self._source.array_shape
        image = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes") if shape else tfds.features.Image()
        label = tfds.features.ClassLabel(names=self._source.class_names)
        features = tfds.features.FeaturesDict({"image": image, "label": label, "id": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, metadata=self._metadata)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        del dl_manager, download_config
        splits = [self._write_split(name, split) for name, split in self._source.splits.items()]
        self.info.set_splits(tfds.core.SplitDict(splits))
        _check_readable(self._source, self._unreadable, self.info.splits)
        with ThreadPoolExecutor(1) as pool:
            unchanged = self._meter.wait_for(pool.submit(self._source.unchanged))
        if not unchanged:
            raise InputError(f"{self._source.origin}: files changed while they were prepared; prepare it again")
        _check_shards(self.info.splits)
        self._metadata["image_shape"] = next(iter(self._shapes)) if len(self._shapes) == 1 else None
        self._metadata["duplicates"] = self._duplicates.document()
        self._metadata["unreadable"] = sorted(self._unreadable)
        self._metadata["decoders_speak"] = images.decoder_words() > self._words
        self._metadata["content_sha256"] = {name: digest.hexdigest() for name, digest in self._digests.items()}
        self._write_indexes()

    def _write_indexes(self) -> None:
        """Write the index of each split beside its records."""
        for name, split in self._source.splits.items():
            rows, stamp = self._written[name], index.stamp_files(self.info.splits[name].filepaths)
            labels, ids = np.array([split.labels[row] for row in rows]), tuple(split.ids[row] for row in rows)
            made = index.SplitIndex(labels, ids, self._metadata["content_sha256"][name])
            index.write_index(index.index_path(Path(self.data_dir), name), made, stamp)

    def findings(self) -> list[str]:
        """Warnings about the images that were written, and those that were not."""
        skipped = f"{self._source.origin}: {unreadable_sentence(sorted(self._unreadable))}; left out"
        return [*([skipped] if self._unreadable else []), *self._duplicates.notes(self._source.name)]

    def _write_split(self, name: str, split: SourceSplit) -> tfds.core.SplitInfo:
        size, written = _bytes_each(self._source), self._written[name]
        shards = [_chunks(rows, size) for rows in _shards(name, split, _shard_count(size * len(split.ids)))]
        template, writer = self._get_filename_template(name), tfds.core.ExampleWriter(_FILE_FORMAT)
        paths, ends = template.sharded_filepaths(len(shards)), [0]
        with closing(map_ahead(partial(_read_chunk, self._source, split), chain(*shards))) as results:
            for path, chunks in zip(paths, shards, strict=True):
                writer.write(path, self._records(name, chunks, results))
                ends.append(len(written))
        size = sum(path.stat().length for path in paths)
        return tfds.core.SplitInfo(
            name=name, shard_lengths=np.diff(ends).tolist(), num_bytes=size, filename_template=template
        )

    def _records(
        self, split_name: str, chunks: Sequence[Sequence[int]], results: Iterator[Future[list[_ReadResult]]]
    ) -> Iterator[tuple[str, bytes]]:
        """The keys and the records of one shard, from the results of its chunks, which are the next ones."""
        split = self._source.splits[split_name]
        for chunk, future in zip(chunks, results, strict=False):
            for row, result in zip(chunk, self._meter.wait_for(future), strict=True):
                if isinstance(result, str):
                    self._unreadable.append(result)
                else:
                    self._shapes.add(result.shape)
                    self._digests[split_name].update(result.content)
                    self._written[split_name].append(row)
                    self._duplicates.add(split_name, split.labels[row], split.ids[row], result.pixels)
                    yield split.ids[row], result.record
                self._meter.advance()

    # TFDS's version warns of a configuration that is not in the code.
    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        del version
        return builder_config

    # TFDS's version creates a folder for downloads, of which there are none.
    def _make_download_manager(self, *arguments: Any, **options: Any) -> Any:
        return SimpleNamespace(downloaded_size=0)

    # TFDS prints these two on stdout, which may hold a live display or a JSON document.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def _shard_count(split_bytes: float) -> int:
    return 1 + int(split_bytes) // _SHARD_BYTES


def _shards(name: str, split: SourceSplit, count: int) -> list[np.ndarray]:
    """Rows of each shard: all rows in the order of the hash of their ids, cut into parts of nearly equal size."""
    keys = [(hashlib.md5(f"{name}{key}".encode()).digest(), key) for key in split.keys or split.ids]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    return np.array_split(order, min(count, len(order)))


def _bytes_each(source: Source) -> float:
    return source.total_bytes / sum(len(split.ids) for split in source.splits.values())


def _chunks(rows: np.ndarray, bytes_each: float) -> list[list[int]]:
    """Chunks of rows, in order, each for one thread."""
    length = chunk_length(bytes_each, _MAX_CHUNK)
    return [rows[start : start + length].tolist() for start in range(0, len(rows), length)]


def _read_chunk(source: Source, split: SourceSplit, rows: Sequence[int]) -> list[_ReadResult]:
    return [_read_one(source, split.ids[row], split.labels[row]) for row in rows]


def _read_one(source: Source, name: str, label: int) -> _ReadResult:
    try:
        image = source.read(name)
        pixels = images.decode_whole(image) if isinstance(image, bytes) else image
    except (images.UnreadableImageError, OSError) as error:
        return f"{name} ({getattr(error, 'strerror', None) or error})"
    content = image if isinstance(image, bytes) else image.tobytes()
    hashed = hashlib.sha256(content).digest()
    return _CheckedImage(_record(content, label, name), pixels.shape, hashed, images.hash_pixels(pixels))


def _record(content: bytes, label: int, name: str) -> bytes:
    """A serialized tf.train.Example, as TFDS makes it, with its features in the order of their names."""
    example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
    features = example.features.feature
    features["id"].bytes_list.value.append(name.encode())
    features["image"].bytes_list.value.append(content)
    features["label"].int64_list.value.append(label)
    return example.SerializeToString(deterministic=True)


def _check_readable(source: Source, names: Sequence[str], splits: Any) -> None:
    if names and not source.skip_unreadable:
        raise InputError(f"{source.origin}: {unreadable_sentence(sorted(names))}; repair or remove them")
    empty = [name for name in source.splits if name not in splits or not splits[name].num_examples]
    if empty:
        raise InputError(f"{source.origin}: no image of the split {empty[0]!r} can be decoded completely")


def _check_shards(splits: Any) -> None:
    """Read back the ends of the files, since not every file system reports to the writer that it is full."""
    for split in splits.values():
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
            if _records_in(str(path)) != length:
                raise OSError(f"{path.name} was not written completely: the disk may be full")


def _records_in(path: str) -> int | None:
    """Number of records in a file; None if its end is missing.

    Raises:
      OSError: if the operating system does not let it be read.
    """
    reader = open_reader(path)
    if reader.ok():
        return reader.num_records()
    try:
        reader.seek(0)
    except RuntimeError as error:
        if cause := system_cause(error):
            raise OSError(f"{path} cannot be read back: {cause}") from error
    return None
