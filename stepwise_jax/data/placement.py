"""Where the images of a data set are kept (on the devices or streamed to them), and why; its splits, opened."""

import os
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from stepwise_jax.data import datasets
from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.loaders import ImageReader, Loader, ResidentLoader, StreamingLoader, place_resident
from stepwise_jax.data.progress import ProgressCallback
from stepwise_jax.data.source import forget_scans, scan_once
from stepwise_jax.experiment.config import DataConfig
from stepwise_jax.functional.preprocessing import channel_histograms
from stepwise_jax.runtime import multihost
from stepwise_jax.runtime.threads import map_ahead

MAX_MEMORY_SHARE = 0.25
"""Largest share of a device's memory for resident images: the network needs the rest."""

_ROWS_PER_READ = 64


class Placement(NamedTuple):
    """How a data set's images reach the devices."""

    kind: Literal["replicated", "sharded", "streamed"]
    """A copy on each device, a share on each device, or sent batch by batch."""
    reason: str
    """A sentence for the user that explains the choice."""


@dataclass(frozen=True)
class Split:
    """One split and the loader that brings it to the devices."""

    loader: Loader
    labels: np.ndarray
    """int32 [N], in the order on disk."""
    ids: tuple[str, ...]
    histograms: np.ndarray | None
    """Counts of each pixel value per channel over all images, int64 [C, 256], where normalisation needs them."""


def open_data(data: DataConfig, mesh: Mesh, progress: ProgressCallback) -> tuple[Dataset, Placement]:
    """Open the data set, preparing it if necessary, and choose its placement."""
    with scan_once():
        multihost.on_first_then_others(lambda: datasets.prepare(data, progress))
        dataset, needed = multihost.on_all_processes(lambda: _open_and_measure(data))
    forget_scans()
    # Hosts may differ in memory, but all must choose the same placement.
    placement = multihost.broadcast_from_first(
        lambda: choose_placement(data.delivery, needed, device_memory(), mesh.size)
    )
    return dataset, Placement(*placement)


def _open_and_measure(data: DataConfig) -> tuple[Dataset, int]:
    """The opened data set, and the bytes of all its images, decoded."""
    dataset = datasets.open_dataset(data)
    count = sum(len(datasets.used_rows(data, dataset, split)[1]) for split in ("train", "test"))
    return dataset, count * int(np.prod(datasets.image_shape(dataset, data.image_size)))


def choose_placement(
    requested: Literal["auto", "resident", "streamed"], needed: int, memory: int, devices: int
) -> Placement:
    """Choose the placement of images unless data.delivery, `requested`, decides it.

    A copy on every device where that takes at most a quarter of its memory, else a share on each if the shares fit,
    else batch by batch.

    Args:
      requested: the value of data.delivery.
      needed: bytes of all images, decoded.
      memory: bytes of memory of one device.
      devices: number of devices.
    """
    limit = int(MAX_MEMORY_SHARE * memory)
    sizes = f"all images take {_size(needed)}, and {_size(limit)} of a device's {_size(memory)} may be used"
    if requested == "streamed":
        return Placement("streamed", "images are streamed, as data.delivery says")
    if needed <= limit:
        return Placement("replicated", f"images stay on the device: {sizes}")
    if needed <= limit * devices and devices > 1:
        return Placement("sharded", f"images stay on the devices, a share on each of {devices}: {sizes}")
    if requested == "resident":
        kind = "sharded" if devices > 1 else "replicated"
        return Placement(kind, f"images stay on the device, as data.delivery says, although {sizes}")
    return Placement("streamed", f"images are streamed: {sizes}")


def device_memory() -> int:
    """Bytes of memory of one device: an accelerator's own, or an equal share of the host's for each CPU device."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count()


def open_split(
    data: DataConfig, dataset: Dataset, split: str, placement: Placement, mesh: Mesh, progress: ProgressCallback
) -> Split:
    """Open a split: decode it and put it on the devices, or prepare to stream it."""
    if placement.kind == "streamed":
        return _open_streamed(data, dataset, split, mesh, progress)
    stored, rows = datasets.used_rows(data, dataset, split)
    examples = datasets.load(dataset, stored, data.image_size, progress, rows)
    resident = place_resident(examples.images, examples.labels, mesh, sharded=placement.kind == "sharded")
    counts = training_histograms(data, dataset, examples.images) if split == "train" else None
    return Split(ResidentLoader(resident, mesh), examples.labels, examples.ids, counts)


def _open_streamed(data: DataConfig, dataset: Dataset, split: str, mesh: Mesh, progress: ProgressCallback) -> Split:
    stored, rows = datasets.used_rows(data, dataset, split)
    labels, ids = datasets.labels_and_ids(dataset, stored, rows, progress)
    read_images = datasets.make_image_reader(dataset, stored, data.image_size, rows)
    loader = StreamingLoader(read_images, labels, datasets.image_shape(dataset, data.image_size), mesh, data.workers)
    return Split(loader, labels, ids, training_histograms(data, dataset) if split == "train" else None)


def training_histograms(data: DataConfig, dataset: Dataset, images: np.ndarray | None = None) -> np.ndarray | None:
    """Counts of each pixel value per channel over all training images; None where normalisation does not need them.

    They are kept beside the data set: images are decoded to count them only once.

    Args:
      data: the data set, and how its images are normalised.
      dataset: the same, opened.
      images: the training images, if they are decoded already.

    Returns:
      int64 [C, 256].
    """
    from stepwise_jax.data.prepared import index

    if data.normalisation != "dataset":
        return None
    stored, rows = datasets.used_rows(data, dataset, "train")

    def count() -> np.ndarray:
        if images is not None:
            return channel_histograms(images)
        return _count_values(datasets.make_image_reader(dataset, stored, data.image_size, rows), len(rows))

    return index.find_histograms(dataset, rows, datasets.image_shape(dataset, data.image_size), count)


def _count_values(read_images: ImageReader, examples: int) -> np.ndarray:
    parts = np.array_split(np.arange(examples), -(-examples // _ROWS_PER_READ))
    return np.sum(
        [future.result() for future in map_ahead(lambda rows: channel_histograms(read_images(rows)), parts)], axis=0
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
