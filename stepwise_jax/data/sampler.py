"""The order of the training examples as a function of (seed, stage, epoch), and the batches cut from it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

from stepwise_jax.plans.stage import Stage


def epoch_order(
    seed: int, stage: int, epoch: int, rows: np.ndarray, batch_size: int, examples: int | None = None
) -> np.ndarray:
    """The batches of one epoch, int32 [updates, batch_size]: `rows` in another order for each (seed, stage, epoch).

    With `examples`, only the first of them: others in each epoch, where there are more rows.

    Sorting the counter-based generator's raw output keeps the order the same on every platform and NumPy version,
    which `Generator.permutation` does not promise. An incomplete last batch is dropped.
    """
    generator = np.random.Philox(counter=[0, 0, epoch, stage], key=[seed, 0])
    shuffled = rows[np.argsort(generator.random_raw(len(rows)), kind="stable")][:examples]
    updates = len(shuffled) // batch_size
    return shuffled[: updates * batch_size].reshape(updates, batch_size).astype(np.int32)


def independent_batches(
    seed: int, stage: int, number: int, rows: np.ndarray, batches: int, batch_size: int
) -> np.ndarray:
    """Batches drawn from `rows` with replacement, int32 [batches, batch_size], for each (seed, stage, number) others.

    The generator's counter keeps them apart from those of `epoch_order`.
    """
    generator = np.random.Philox(counter=[0, 1, number, stage], key=[seed, 0])
    drawn = generator.random_raw(batches * batch_size) % np.uint64(len(rows))
    return rows[drawn.astype(np.int64)].reshape(batches, batch_size).astype(np.int32)


class BatchSampler(Protocol):
    """The batches of one split, with random access: an array of rows int32 [n, b] is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> np.ndarray:
        """Rows int32 [b] of a batch."""
        ...


_Key = tuple[int, int]


class _OrdersAhead:
    """The orders of epochs, each computed once, in a thread, when the epoch before it begins. Thread-safe."""

    _KEPT = 4
    """Two epochs are in use while batches are prefetched across the end of an epoch, one comes next, and one ended."""

    def __init__(self, compute: Callable[[int, int], np.ndarray]):
        self._compute, self._lock = compute, threading.Lock()
        self._pool = ThreadPoolExecutor(1)
        self._orders: OrderedDict[_Key, Future[np.ndarray]] = OrderedDict()

    def get(self, key: _Key, following: _Key | None) -> np.ndarray:
        """The order of an epoch; starts to compute the `following` one."""
        with self._lock:
            for each in (key, following):
                if each is not None and each not in self._orders:
                    self._orders[each] = self._pool.submit(self._compute, *each)
            self._orders.move_to_end(key)
            order = self._orders[key]
            while len(self._orders) > self._KEPT:
                self._orders.popitem(last=False)
        return order.result()


class PlanSampler:
    """The batch of every update of a run, indexed by the number of updates before it (a `BatchSampler`)."""

    def __init__(self, seed: int, stages: Sequence[Stage], subsets: Sequence[np.ndarray]):
        self._seed, self._stages, self._subsets = seed, tuple(stages), tuple(subsets)
        self._ends = np.cumsum([stage.updates for stage in stages])
        self._orders = _OrdersAhead(self._shuffled)

    @property
    def largest_batch(self) -> int:
        """Number of examples in the largest batch."""
        return max(stage.batch_size for stage in self._stages)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, update: int) -> np.ndarray:
        if not 0 <= update < len(self):
            raise IndexError(update)
        stage = int(np.searchsorted(self._ends, update, side="right"))
        update_in_stage = update - (int(self._ends[stage - 1]) if stage else 0)
        epoch, step = divmod(update_in_stage, self._stages[stage].updates_per_epoch)
        return self._orders.get((stage + 1, epoch + 1), self._following(stage + 1, epoch + 1))[step]

    def _following(self, stage: int, epoch: int) -> tuple[int, int] | None:
        """The stage and the epoch that come next; None at the end of the run."""
        if epoch < self._stages[stage - 1].epochs:
            return stage, epoch + 1
        return (stage + 1, 1) if stage < len(self._stages) else None

    def _shuffled(self, stage: int, epoch: int) -> np.ndarray:
        rows, planned = self._subsets[stage - 1], self._stages[stage - 1]
        return epoch_order(self._seed, stage, epoch, rows, planned.batch_size, planned.examples)


def split_into_calls(numbers: Sequence[int], steps_per_call: int) -> Iterator[Sequence[int]]:
    """The updates of each call of the training program, in order; the last call may be shorter."""
    for first in range(0, len(numbers), steps_per_call):
        yield numbers[first : first + steps_per_call]


def steps_in_call(updates: int, max_steps: int) -> int:
    """Steps per call for an epoch of `updates` steps: a divisor near `max_steps`, so that no shorter call compiles too.

    Returns:
      The largest divisor of `updates` in the upper half of 1 to `max_steps`, or `max_steps` if there is none.
    """
    max_steps = min(max_steps, updates)
    return next((k for k in range(max_steps, max_steps // 2, -1) if updates % k == 0), max_steps)
