"""How batches reach the devices: as rows of images that are there already, or as images read and decoded on the way.

Both loaders give the same batches for the same sampler, and both start at any batch without reading the earlier ones.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from stepwise_jax.data.batches import ImageBatch, Inputs, ResidentSplit
from stepwise_jax.data.sampler import BatchSampler, PlanSampler
from stepwise_jax.runtime.sharding import place, replicated, split_along
from stepwise_jax.runtime.threads import usable_cores

CALLS_PER_TRANSFER = 64
"""Calls whose rows are sent to the devices together: sending many small arrays costs little more than sending one."""

_FIRST_TRANSFER_CALLS = 2
"""Calls in the first transfer, which the device has to wait for."""

BUFFER_BYTES = 1 << 30
"""Limit on the decoded images that wait on the host."""

ImageReader = Callable[[np.ndarray], np.ndarray]
"""Maps rows int [n] to images uint8 [n, H, W, C]; called from several threads."""


class Loader(Protocol):
    """Gives the batches of one split, on the devices."""

    @property
    def examples(self) -> ResidentSplit | None:
        """The whole split, where it stays on the devices."""
        ...

    def abstract_inputs(self, *shape: int) -> Any:
        """Shape, type and sharding of a batch [b] or of the stacked batches [k, b] of a call, for compilation."""
        ...

    def stacked_batches(self, sampler: BatchSampler, calls: Iterable[Sequence[int]]) -> Iterator[Inputs]:
        """The batches of each call, stacked to [k, b].

        Args:
          sampler: gives the rows of a batch by its number.
          calls: the numbers of the batches of each call, consecutive within and across calls.
        """
        ...

    def batches(self, sampler: BatchSampler) -> Iterator[Inputs]:
        """All batches of a sampler one by one, [b]."""
        ...

    def images(self, rows: np.ndarray) -> np.ndarray:
        """A few images on the host: uint8 [n, H, W, C] of rows int [n]."""
        ...

    def close(self) -> None:
        """Stop prefetching."""
        ...


class ResidentLoader:
    """Loader of a split that is on the devices: only row numbers are sent."""

    def __init__(self, examples: ResidentSplit, mesh: Mesh):
        self.examples = examples
        self._mesh = mesh

    def abstract_inputs(self, *shape: int) -> Inputs:
        """See `Loader`."""
        return _abstract_array(shape, np.int32, split_along(self._mesh, len(shape) - 1))

    def stacked_batches(self, sampler: BatchSampler, calls: Iterable[Sequence[int]]) -> Iterator[Inputs]:
        """See `Loader`."""
        sharding, remaining, count = split_along(self._mesh, 1), iter(calls), _FIRST_TRANSFER_CALLS
        while transfer := list(islice(remaining, count)):
            yield from place([np.stack([sampler[number] for number in call]) for call in transfer], sharding)
            count = CALLS_PER_TRANSFER

    def batches(self, sampler: BatchSampler) -> Iterator[Inputs]:
        """See `Loader`."""
        for number in range(len(sampler)):
            yield place(sampler[number], split_along(self._mesh, 0))

    def images(self, rows: np.ndarray) -> np.ndarray:
        """See `Loader`."""
        # Other processes may hold shares of the split: all processes make this call together, and each gets all rows.
        return np.asarray(jax.jit(_take, out_shardings=replicated(self._mesh))(self.examples.images, rows))

    def close(self) -> None:
        """Do nothing: there is no prefetching."""


class StreamingLoader:
    """Loader that reads and decodes images in threads, some batches ahead, and sends them as they are needed.

    The threads work through a whole sampler, across the ends of epochs and stages, whatever the batch sizes. In a run
    of several processes, each reads its own share of every batch.
    """

    examples = None

    def __init__(
        self,
        read_images: ImageReader,
        labels: np.ndarray,
        image_shape: tuple[int, int, int],
        mesh: Mesh,
        workers: int,
    ):
        self._read_images, self._labels = read_images, labels.astype(np.int32)
        self._image_shape, self._mesh = image_shape, mesh
        # Two threads per core, more than can decode at a time: some wait for a record or for the interpreter.
        self._workers = workers or 2 * usable_cores()
        self._position: tuple[BatchSampler, int] | None = None
        self._prefetched: Any = None

    def abstract_inputs(self, *shape: int) -> Inputs:
        """See `Loader`."""
        sharding = split_along(self._mesh, len(shape) - 1)
        return ImageBatch(
            _abstract_array((*shape, *self._image_shape), np.uint8, sharding),
            _abstract_array(shape, np.int32, sharding),
        )

    def stacked_batches(self, sampler: BatchSampler, calls: Iterable[Sequence[int]]) -> Iterator[Inputs]:
        """See `Loader`."""
        for call in calls:
            self._seek(sampler, call[0])
            batches = [next(self._prefetched) for _ in call]
            self._position = (sampler, call[-1] + 1)
            images, labels = (
                np.stack(parts) if len(call) > 1 else parts[0][None] for parts in zip(*batches, strict=True)
            )
            yield self._place(images, labels, len(sampler[call[0]]))

    def batches(self, sampler: BatchSampler) -> Iterator[Inputs]:
        """See `Loader`."""
        prefetched = self._prefetch(sampler, 0)
        try:
            for number in range(len(sampler)):
                images, labels = next(prefetched)
                yield self._place(images, labels, len(sampler[number]))
        finally:
            prefetched.close()

    def images(self, rows: np.ndarray) -> np.ndarray:
        """See `Loader`."""
        return self._read_images(rows)

    def close(self) -> None:
        """See `Loader`."""
        if self._prefetched is not None:
            self._prefetched.close()
        self._position = self._prefetched = None

    def _seek(self, sampler: BatchSampler, number: int) -> None:
        """Restart prefetching, unless the next prefetched batch is the one with this number."""
        if self._position is None or self._position[0] is not sampler or self._position[1] != number:
            self.close()
            self._prefetched = self._prefetch(sampler, number)

    def _prefetch(self, sampler: BatchSampler, first: int) -> Any:
        """An iterator over the batches from number `first` on, read ahead by threads."""
        source = _BatchSource(sampler, self._read_images, self._labels, self._mesh)
        # The later, larger batches of a plan wait in the same buffer as its first ones.
        largest = sampler.largest_batch if isinstance(sampler, PlanSampler) else len(sampler[first])
        batch_bytes = int(np.prod(self._image_shape)) * largest // jax.process_count()
        options = grain.ReadOptions(self._workers, buffer_length(self._workers, batch_bytes))
        return iter(grain.MapDataset.source(source)[first:].to_iter_dataset(options))

    def _place(self, images: np.ndarray, labels: np.ndarray, batch_size: int) -> ImageBatch:
        """This process's share of a batch, or of stacked batches, as global arrays on the devices."""
        sharding = split_along(self._mesh, labels.ndim - 1)

        def place_share(array: np.ndarray) -> jax.Array:
            shape = (*labels.shape[:-1], batch_size, *array.shape[labels.ndim :])
            return jax.make_array_from_process_local_data(sharding, array, shape)

        return ImageBatch(place_share(images), place_share(labels))


class _BatchSource:
    """Batches by number, each read and decoded on access (grain's random-access source)."""

    def __init__(self, sampler: BatchSampler, read_images: ImageReader, labels: np.ndarray, mesh: Mesh):
        self._sampler, self._read_images, self._labels, self._mesh = sampler, read_images, labels, mesh

    def __len__(self) -> int:
        return len(self._sampler)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._local_rows(self._sampler[index])
        return self._read_images(rows), self._labels[rows]

    def _local_rows(self, rows: np.ndarray) -> np.ndarray:
        """The rows of a batch that belong to this process's devices."""
        local = np.zeros(len(rows), bool)
        for share in split_along(self._mesh, 0).addressable_devices_indices_map(rows.shape).values():
            local[share] = True
        return rows[local]


def buffer_length(workers: int, batch_bytes: int) -> int:
    """Number of batches in the buffer: four per thread, as far as `BUFFER_BYTES` allows, and at least one."""
    return max(1, min(4 * workers, BUFFER_BYTES // max(batch_bytes, 1)))


def place_resident(images: np.ndarray, labels: np.ndarray, mesh: Mesh, *, sharded: bool) -> ResidentSplit:
    """Put a split on the devices: a copy on each, or sharded over them and padded with black images."""
    if not sharded:
        return place(ResidentSplit(images, labels.astype(np.int32)), replicated(mesh))  # pyright: ignore
    missing = -len(labels) % mesh.size
    padded = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)]) if missing else images
    placed_labels = place(labels.astype(np.int32), replicated(mesh))
    return ResidentSplit(place(padded, split_along(mesh, 0)), placed_labels)


def _take(images: jax.Array, rows: jax.Array) -> jax.Array:
    return images[rows]


def _abstract_array(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
