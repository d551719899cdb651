"""How batches reach the devices: as rows of images that are there already, or as images read and decoded on the way.

Both ways give the same batches for the same order, and both start at any place of it without passing what lies before.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from stepwise_jax.data.batches import Inputs, Pixels, Resident
from stepwise_jax.data.sampler import Order, PlanOrder
from stepwise_jax.runtime.sharding import place, replicated, split_along
from stepwise_jax.runtime.threads import cores

CALLS_PLACED = 64
"""Placing many small arrays at once costs little more than placing one."""

_CALLS_PLACED_FIRST = 2
"""But the device waits for the first ones."""

BUFFER_BYTES = 1 << 30
"""The most that decoded images wait in, on the host, for their turn."""

Read = Callable[[np.ndarray], np.ndarray]
"""Rows int [n] to images uint8 [n, H, W, C]; called from several threads."""


class Loader(Protocol):
    """One split on its way to the devices."""

    @property
    def examples(self) -> Resident | None:
        """The whole split, where it stays on the devices."""
        ...

    def abstract(self, *shape: int) -> Any:
        """Shape, type and placement of a batch of shape [b] or of a call of shape [k, b], for compiling."""
        ...

    def calls(self, order: Order, calls: Iterable[Sequence[int]]) -> Iterator[Inputs]:
        """The batches of an order, [k, b] for each call's numbers, which follow one another from call to call."""
        ...

    def batches(self, order: Order) -> Iterator[Inputs]:
        """All batches of an order one by one, [b]."""
        ...

    def images(self, rows: np.ndarray) -> np.ndarray:
        """A few images on the host: uint8 [n, H, W, C] of rows int [n]."""
        ...

    def close(self) -> None:
        """Ends what works ahead."""
        ...


class ResidentLoader:
    """A split that is on the devices: what is sent is rows."""

    def __init__(self, examples: Resident, mesh: Mesh):
        self.examples = examples
        self._mesh = mesh

    def abstract(self, *shape: int) -> Inputs:
        """See `Loader`."""
        return _abstract(shape, np.int32, split_along(self._mesh, len(shape) - 1))

    def calls(self, order: Order, calls: Iterable[Sequence[int]]) -> Iterator[Inputs]:
        """See `Loader`."""
        sharding, ahead, at_once = split_along(self._mesh, 1), iter(calls), _CALLS_PLACED_FIRST
        while chosen := list(islice(ahead, at_once)):
            yield from place([np.stack([order[number] for number in call]) for call in chosen], sharding)
            at_once = CALLS_PLACED

    def batches(self, order: Order) -> Iterator[Inputs]:
        """See `Loader`."""
        for number in range(len(order)):
            yield place(order[number], split_along(self._mesh, 0))

    def images(self, rows: np.ndarray) -> np.ndarray:
        """See `Loader`."""
        # Shares of a split may lie with other processes: all of them ask together, and each gets all rows.
        return np.asarray(jax.jit(_pick, out_shardings=replicated(self._mesh))(self.examples.images, rows))

    def close(self) -> None:
        """Nothing works ahead."""


class StreamingLoader:
    """A split whose images are read and decoded by threads, some batches ahead, and sent as they are needed.

    The threads work through a whole order, over the ends of epochs and stages, whatever the sizes of the batches. Of
    several processes each reads its own share of every batch.
    """

    examples = None

    def __init__(self, read: Read, labels: np.ndarray, image_shape: tuple[int, int, int], mesh: Mesh, workers: int):
        self._read, self._labels, self._shape, self._mesh = read, labels.astype(np.int32), image_shape, mesh
        # One more thread a core than can decode at a time: some wait for a record or for the interpreter.
        self._workers = workers or 2 * cores()
        self._source: tuple[Order, int] | None = None
        self._ahead: Any = None

    def abstract(self, *shape: int) -> Inputs:
        """See `Loader`."""
        sharding = split_along(self._mesh, len(shape) - 1)
        return Pixels(_abstract((*shape, *self._shape), np.uint8, sharding), _abstract(shape, np.int32, sharding))

    def calls(self, order: Order, calls: Iterable[Sequence[int]]) -> Iterator[Inputs]:
        """See `Loader`."""
        for call in calls:
            self._seek(order, call[0])
            pixels = [next(self._ahead) for _ in call]
            self._source = (order, call[-1] + 1)
            images, labels = (
                np.stack(parts) if len(call) > 1 else parts[0][None] for parts in zip(*pixels, strict=True)
            )
            yield self._place(images, labels, len(order[call[0]]))

    def batches(self, order: Order) -> Iterator[Inputs]:
        """See `Loader`."""
        ahead = self._start(order, 0)
        try:
            for number in range(len(order)):
                images, labels = next(ahead)
                yield self._place(images, labels, len(order[number]))
        finally:
            ahead.close()

    def images(self, rows: np.ndarray) -> np.ndarray:
        """See `Loader`."""
        return self._read(rows)

    def close(self) -> None:
        """See `Loader`."""
        if self._ahead is not None:
            self._ahead.close()
        self._source = self._ahead = None

    def _seek(self, order: Order, number: int) -> None:
        if self._source is None or self._source[0] is not order or self._source[1] != number:
            self.close()
            self._ahead = self._start(order, number)

    def _start(self, order: Order, number: int) -> Any:
        loader = _BatchSource(order, self._read, self._labels, self._mesh)
        # A plan's later batches wait in the same buffer as its first ones, and are larger.
        examples = order.largest if isinstance(order, PlanOrder) else len(order[number])
        batch_bytes = int(np.prod(self._shape)) * examples // jax.process_count()
        options = grain.ReadOptions(self._workers, buffer_length(self._workers, batch_bytes))
        return iter(grain.MapDataset.source(loader)[number:].to_iter_dataset(options))

    def _place(self, images: np.ndarray, labels: np.ndarray, batch_size: int) -> Pixels:
        sharding = split_along(self._mesh, labels.ndim - 1)

        def place(array: np.ndarray) -> jax.Array:
            shape = (*labels.shape[:-1], batch_size, *array.shape[labels.ndim :])
            return jax.make_array_from_process_local_data(sharding, array, shape)

        return Pixels(place(images), place(labels))


class _BatchSource:
    """Batches by their number, each read and decoded when it is asked for (grain's random access source)."""

    def __init__(self, order: Order, read: Read, labels: np.ndarray, mesh: Mesh):
        self._order, self._read, self._labels, self._mesh = order, read, labels, mesh

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.share(self._order[index])
        return self._read(rows), self._labels[rows]

    def share(self, rows: np.ndarray) -> np.ndarray:
        """The rows of a batch that this process's devices hold."""
        shares = split_along(self._mesh, 0).addressable_devices_indices_map(rows.shape).values()
        ours = np.zeros(len(rows), bool)
        for share in shares:
            ours[share] = True
        return rows[ours]


def buffer_length(workers: int, batch_bytes: int) -> int:
    """How many batches may wait: enough for every thread to have one done and one under way, within `BUFFER_BYTES`."""
    return max(1, min(4 * workers, BUFFER_BYTES // max(batch_bytes, 1)))


def place_resident(images: np.ndarray, labels: np.ndarray, mesh: Mesh, *, sharded: bool) -> Resident:
    """A split on the devices: a copy on each, or spread over them, filled up with black images."""
    if not sharded:
        return place(Resident(images, labels.astype(np.int32)), replicated(mesh))  # pyright: ignore
    missing = -len(labels) % mesh.size
    padded = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)]) if missing else images
    classes = place(labels.astype(np.int32), replicated(mesh))
    return Resident(place(padded, split_along(mesh, 0)), classes)


def _pick(images: jax.Array, rows: jax.Array) -> jax.Array:
    return images[rows]


def _abstract(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
