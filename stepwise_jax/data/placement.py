"""Which way the images of a data set take to the devices, and why; its splits, opened for that way."""

import os
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.loaders import Loader, Read, ResidentLoader, StreamingLoader, place_resident
from stepwise_jax.data.progress import Progress
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.functional.preprocessing import histograms
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.threads import run_ahead

SHARE_OF_MEMORY = 0.25
"""The most of a device's memory that resident images may take: the rest is the network's."""

_ROWS_AT_ONCE = 64


class Placement(NamedTuple):
    """The way, and the sentence that says why it was taken."""

    kind: Literal["replicated", "sharded", "streamed"]
    reason: str


@dataclass(frozen=True)
class Split:
    """One split, on its way to the devices."""

    feed: Loader
    labels: np.ndarray
    """int32 [N], in the order on disk."""
    ids: tuple[str, ...]
    histograms: np.ndarray | None
    """How often each channel has each value over all images, int64 [C, 256], where normalisation needs it."""


def open_data(data: DataConfig, mesh: Mesh, progress: Progress) -> tuple[Dataset, Placement]:
    """The data set, prepared if need be, and how it will be delivered."""
    multihost.first_then_others(lambda: datasets.prepare(data, progress))
    dataset = datasets.open_dataset(data)
    count = sum(len(datasets.used_rows(data, dataset, split)[1]) for split in ("train", "test"))
    needed = count * int(np.prod(datasets.image_shape(dataset, data.image_size)))
    # The memory of hosts may differ, and their choice must not.
    chosen = multihost.broadcast_from_first(lambda: choose(data.delivery, needed, device_memory(), mesh.size))
    return dataset, Placement(*chosen)


def choose(wanted: Literal["auto", "resident", "streamed"], needed: int, memory: int, devices: int) -> Placement:
    """The way for images of `needed` bytes, decoded, to `devices` of `memory` bytes each.

    A copy on every device where that takes no more than a quarter of its memory, else a share on each if those fit,
    else batch by batch.
    """
    limit = int(SHARE_OF_MEMORY * memory)
    sizes = f"all images take {_size(needed)}, and {_size(limit)} of a device's {_size(memory)} may be used"
    if wanted == "streamed":
        return Placement("streamed", "images are streamed, as data.delivery says")
    if needed <= limit:
        return Placement("replicated", f"images stay on the device: {sizes}")
    if needed <= limit * devices and devices > 1:
        return Placement("sharded", f"images stay on the devices, a share on each of {devices}: {sizes}")
    if wanted == "resident":
        kind = "sharded" if devices > 1 else "replicated"
        return Placement(kind, f"images stay on the device, as data.delivery says, although {sizes}")
    return Placement("streamed", f"images are streamed: {sizes}")


def device_memory() -> int:
    """Bytes of memory of one device: an accelerator's own, or this machine's shared among its CPU devices."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()


def open_split(
    data: DataConfig, dataset: Dataset, split: str, delivery: Placement, mesh: Mesh, progress: Progress
) -> Split:
    """A split, decoded and placed on the devices, or ready to be streamed there."""
    if delivery.kind == "streamed":
        return _streamed(data, dataset, split, mesh)
    stored, rows = datasets.used_rows(data, dataset, split)
    examples = datasets.load(dataset, stored, data.image_size, progress, rows)
    resident = place_resident(examples.images, examples.labels, mesh, sharded=delivery.kind == "sharded")
    counts = histograms(examples.images) if _counted(data, split) else None
    return Split(ResidentLoader(resident, mesh), examples.labels, examples.ids, counts)


def _streamed(data: DataConfig, dataset: Dataset, split: str, mesh: Mesh) -> Split:
    stored, rows = datasets.used_rows(data, dataset, split)
    labels, ids = datasets.index(dataset, stored, rows)
    read = datasets.make_read(dataset, stored, data.image_size, rows)
    feed = StreamingLoader(read, labels, datasets.image_shape(dataset, data.image_size), mesh, data.workers)
    return Split(feed, labels, ids, _count(read, len(labels)) if _counted(data, split) else None)


def _counted(data: DataConfig, split: str) -> bool:
    return data.normalisation == "dataset" and split == "train"


def _count(read: Read, examples: int) -> np.ndarray:
    parts = np.array_split(np.arange(examples), -(-examples // _ROWS_AT_ONCE))
    return np.sum([future.result() for future in run_ahead(lambda rows: histograms(read(rows)), parts)], axis=0)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
