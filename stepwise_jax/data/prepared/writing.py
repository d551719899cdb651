"""Writes a data set as TFDS array_record files: once, whole or not at all, and without TensorFlow.

TFDS's own generator of examples shuffles through TensorFlow's file system once a split is larger than a gigabyte. So
the builder writes shard by shard instead, in the order that TFDS would give: by the MD5 hash of split name and key.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource

from stepwise_jax.data import images
from stepwise_jax.data.disk import check_room, is_refused, locked, write_error
from stepwise_jax.data.prepared.locating import NAMESPACE, prepared_folder
from stepwise_jax.data.progress import Progress, ProgressMeter, progress_meter
from stepwise_jax.data.source import Source, SourceSplit, absent_classes, check
from stepwise_jax.errors import InputError
from stepwise_jax.runtime.threads import chunk_length, run_ahead

_SHARD_BYTES = 128 << 20

_MOST_AT_ONCE = 32

_log = logging.getLogger(__name__)

Fetched = tuple[bytes | np.ndarray, tuple[int, ...]] | str
"""An image and its shape, or the sentence that says why it cannot be read."""


def prepare(source: Source, data_dir: Path, progress: Progress) -> None:
    """Writes a source under `data_dir`, unless it is there already.

    Of several processes that prepare the same source one works and the others wait for it. What a killed one left
    behind is removed by the next.

    Raises:
      InputError: for a source that contradicts itself, images that cannot be read as a whole, a `data_dir` that cannot
        be written, or a full disk.
    """
    target = prepared_folder(source.name, source.version, source.fingerprint, data_dir)
    if target.exists():
        return
    check(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        waiting = partial(progress, 0, 1, f"{source.name}: another process prepares it")
        with locked(target.parent / ".lock", waiting) as held:
            if not target.exists():
                if held:
                    _remove_incomplete(target.parent)
                check_room(data_dir, _room(source))
                _write(source, data_dir, progress)
    except OSError as error:
        raise write_error(target, error, _room(source)) from error
    # What array_record's writer raises, whatever the cause.
    except RuntimeError as error:
        if is_refused(error):
            raise write_error(target, error, _room(source)) from error
        raise


def _room(source: Source) -> int:
    """Bytes on disk that preparing takes, about."""
    return int(source.size_bytes * 1.05) + (1 << 20)


def _remove_incomplete(parent: Path) -> None:
    for path in parent.glob("incomplete.*"):
        shutil.rmtree(path, ignore_errors=True)


def _write(source: Source, data_dir: Path, progress: Progress) -> None:
    for note in (*source.notes, *absent_classes(source)):
        _log.warning(note)
    total = sum(len(split.ids) for split in source.splits.values())
    with (
        progress_meter(progress, total, f"{source.name}: checking and storing images") as meter,
        images.bombs_refused(),
    ):
        builder = _Builder(source, data_dir, meter)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


class _Builder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """A source as a TFDS builder, good for preparing it once; opening needs `tfds.builder_from_directory` alone."""

    # Nothing is downloaded; looking for checksums beside the code needs a package that TFDS does not install.
    code_path = None
    url_infos = None

    def __init__(self, source: Source, data_dir: Path, meter: ProgressMeter):
        self.name = NAMESPACE + source.name  # pyright: ignore[reportAttributeAccessIssue]
        self.VERSION = tfds.core.Version(source.version)
        self._source, self._meter = source, meter
        self._shapes: set[tuple[int, ...]] = set()
        self._unreadable: list[str] = []
        self._digests = {name: hashlib.sha256() for name in source.splits}
        self._metadata = tfds.core.MetadataDict(class_names=source.class_names)
        config = tfds.core.BuilderConfig(name=source.fingerprint) if source.fingerprint else None
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        shape = self._source.array_shape
        image = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes") if shape else tfds.features.Image()
        label = tfds.features.ClassLabel(names=self._source.class_names)
        features = tfds.features.FeaturesDict({"image": image, "label": label, "id": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features, metadata=self._metadata)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        _refuse_unreadable(self._source, self._unreadable)
        with ThreadPoolExecutor(1) as pool:
            unchanged = self._meter.result(pool.submit(self._source.unchanged))
        if not unchanged:
            raise InputError(f"{self._source.place}: files changed while they were prepared; prepare it again")
        _check_shards(self.info.splits)
        self._metadata["image_shape"] = next(iter(self._shapes)) if len(self._shapes) == 1 else None
        self._metadata["content_sha256"] = {name: digest.hexdigest() for name, digest in self._digests.items()}

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Iterator[Any]]]]:
        del dl_manager
        shards = {name: _shards(name, split, _shard_count(self._source)) for name, split in self._source.splits.items()}
        return {name: [partial(self._examples, name, rows) for rows in parts] for name, parts in shards.items()}

    def _examples(self, split_name: str, rows: np.ndarray) -> Iterator[tuple[str, dict[str, Any]]]:
        split, parts = self._source.splits[split_name], _parts(rows, _bytes_each(self._source))
        for part, future in zip(parts, run_ahead(partial(_fetch, self._source, split), parts), strict=True):
            for row, fetched in zip(part, self._meter.result(future), strict=True):
                if isinstance(fetched, str):
                    self._unreadable.append(fetched)
                else:
                    self._note(split_name, *fetched)
                    yield split.ids[row], {"image": fetched[0], "label": split.labels[row], "id": split.ids[row]}
                self._meter.advance()

    def _note(self, split_name: str, image: bytes | np.ndarray, shape: tuple[int, ...]) -> None:
        """Keeps what the metadata tell of all images together: their shapes, and a hash over the hashes of each."""
        self._shapes.add(shape)
        content = image if isinstance(image, bytes) else image.tobytes()
        self._digests[split_name].update(hashlib.sha256(content).digest())

    # TFDS's own warns of a configuration that is not in the code.
    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        del version
        return builder_config

    # TFDS's own makes a folder for downloads, of which there are none.
    def _make_download_manager(self, *arguments: Any, **options: Any) -> Any:
        return SimpleNamespace(downloaded_size=0)

    # TFDS prints these two on stdout, where a live display or a JSON document may be.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


def _shard_count(source: Source) -> int:
    return 1 + source.size_bytes // _SHARD_BYTES


def _shards(name: str, split: SourceSplit, count: int) -> list[np.ndarray]:
    """Rows of each shard: all rows in the order of the hash of their ids, cut into parts of nearly one size."""
    keys = [(hashlib.md5(f"{name}{key}".encode()).digest(), key) for key in split.keys or split.ids]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    return np.array_split(order, min(count, len(order)))


def _bytes_each(source: Source) -> float:
    return source.size_bytes / sum(len(split.ids) for split in source.splits.values())


def _parts(rows: np.ndarray, bytes_each: float) -> list[list[int]]:
    """Rows for one thread at a time, in order."""
    length = chunk_length(bytes_each, _MOST_AT_ONCE)
    return [rows[start : start + length].tolist() for start in range(0, len(rows), length)]


def _fetch(source: Source, split: SourceSplit, rows: Sequence[int]) -> list[Fetched]:
    return [_fetch_one(source, split.ids[row]) for row in rows]


def _fetch_one(source: Source, name: str) -> Fetched:
    try:
        image = source.read(name)
        return image, images.check(image) if isinstance(image, bytes) else image.shape
    except (images.UnreadableImageError, OSError) as error:
        return f"{name} ({getattr(error, 'strerror', None) or error})"


def _refuse_unreadable(source: Source, names: Sequence[str]) -> None:
    if names:
        few = ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "")
        counted = "1 image" if len(names) == 1 else f"{len(names)} images"
        raise InputError(f"{source.place}: {counted} cannot be read as a whole: {few}; repair or remove them")


def _check_shards(splits: Any) -> None:
    """Reads the files' ends back, as not every file system tells the writer that it is full."""
    for split in splits.values():
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
            if _records_in(str(path)) != length:
                raise OSError(f"{path.name} was not written as a whole: the disk may be full")


def _records_in(path: str) -> int | None:
    """How many records a file holds; None if it has no proper end."""
    try:
        return len(ArrayRecordDataSource([path]))
    except RuntimeError:
        return None
