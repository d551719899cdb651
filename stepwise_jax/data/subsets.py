"""The nested subsets M_1, ..., M_n of the training set (Eq. 6): drawn, counted, and hashed.

Every draw orders the training examples, and each M_i is a prefix of that order, so of any two subsets the smaller is
part of the larger by construction, whichever comes first.
"""

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stepwise_jax.errors import InputError

if TYPE_CHECKING:
    from stepwise_jax.data.dataset import Dataset

# Keeps the random bits of subsets distinct from those that the same seed gives elsewhere.
_STREAM, _SAMPLE_STREAM = 0x5B5E75, 0x5A3B1E


@dataclass(frozen=True, eq=False)
class Subset:
    """The ordered examples of one M_i.

    Attributes:
      split: how it was drawn: "train[:287]" (a TFDS subsplit), "seeded:0[:287]", "stratified:0[:287]".
      rows: int64 [count], row numbers in the training split on disk.
      count: M_i, the number of examples.
      class_counts: examples of each class.
      sha256: of the ordered ids; see `hash_ids`.
    """

    split: str
    rows: np.ndarray
    count: int
    class_counts: tuple[int, ...]
    sha256: str


def draw(
    data_draw: Literal["tfds", "seeded", "stratified"],
    seed: int,
    labels: np.ndarray,
    ids: Sequence[str],
    counts: Sequence[int],
    builder: Any = None,
) -> tuple[Subset, ...]:
    """Draw nested subsets of the training set.

    Args:
      data_draw: "tfds" for TFDS's subsplits train[:k] of the hash-shuffled data; "seeded" for prefixes of a permutation
        that depends on the seed alone; "stratified" for prefixes of an order in which every prefix has each class's
        proportional share to within one example, shuffled within each class by the seed.
      seed: ignored by "tfds".
      labels: int [N], of the training examples in the order on disk.
      ids: the N examples' ids in the same order.
      counts: examples of each subset.
      builder: TFDS's, of the prepared data set; needed by "tfds".

    Raises:
      InputError: for counts that are not between 1 and N.
    """
    _check_counts(counts, len(labels))
    num_classes = int(np.max(labels)) + 1
    if data_draw == "tfds":
        splits = [(f"train[:{count}]", _subsplit_rows(builder, count)) for count in counts]
    else:
        order = seeded_order(seed, len(labels)) if data_draw == "seeded" else stratified_order(seed, labels)
        splits = [(f"{data_draw}:{seed}[:{count}]", order[:count]) for count in counts]
    return tuple(_subset(split, rows, labels, ids, num_classes) for split, rows in splits)


def _check_counts(counts: Sequence[int], examples: int) -> None:
    if not all(1 <= count <= examples for count in counts):
        raise InputError(f"subsets of {list(counts)} examples: they must lie between 1 and {examples}")


def _subset(split: str, rows: np.ndarray, labels: np.ndarray, ids: Sequence[str], num_classes: int) -> Subset:
    counts = np.bincount(labels[rows], minlength=num_classes)
    names = [ids[int(row)] for row in rows]
    return Subset(split, rows, len(rows), tuple(counts.tolist()), hash_ids(names))


def hash_ids(ids: Sequence[str]) -> str:
    """SHA-256 (hexadecimal) of ids in order, each as UTF-8 followed by a zero byte."""
    return hashlib.sha256("".join(f"{name}\0" for name in ids).encode()).hexdigest()


def _subsplit_rows(builder: Any, count: int) -> np.ndarray:
    """Rows of "train" that TFDS's subsplit train[:count] contains, as TFDS itself computes them."""
    if builder is None:
        raise ValueError("the draw 'tfds' needs the builder of the data set")
    train = builder.info.splits["train"]
    starts = np.concatenate([[0], np.cumsum(train.shard_lengths)])
    names = [path.name for path in train.filepaths]
    shards = dict(zip(names, starts[:-1].tolist(), strict=True))
    parts = []
    for instruction in builder.info.splits[f"train[:{count}]"].file_instructions:
        start = shards[instruction.basename()] + instruction.skip
        parts.append(np.arange(start, start + instruction.take))
    return np.concatenate(parts)


def seeded_order(seed: int, examples: int) -> np.ndarray:
    """A permutation, int64 [examples], that depends on the seed and the number of examples alone.

    It sorts Philox's raw bits, a stream that NumPy guarantees never to change, unlike `Generator.permutation`.
    """
    return np.argsort(_bits(seed, examples), kind="stable")


def draw_sample(seed: int, examples: int, count: int) -> np.ndarray:
    """`count` of `examples` numbers from 0, int64 in ascending order, as `data.sample_seed` draws them."""
    return np.sort(np.argsort(_bits(seed, examples, _SAMPLE_STREAM), kind="stable")[:count])


def _bits(seed: int, count: int, stream: int = _STREAM) -> np.ndarray:
    return np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(count)


def stratified_order(seed: int, labels: np.ndarray) -> np.ndarray:
    """A permutation, int64 [N], each prefix of which has every class's share to within one example.

    After k examples, a class of n must be less than one example ahead of its share k * n / N, and less than one behind.
    This gives each example an earliest and a latest position; of the examples that may come next, the one with the
    earliest deadline does. Such a schedule always exists (Steiner and Yeomans, 1993).
    """
    bits = _bits(seed, len(labels))
    members = [np.flatnonzero(labels == label) for label in range(int(np.max(labels)) + 1)]
    queues = [rows[np.argsort(bits[rows], kind="stable")].tolist() for rows in members]
    order = np.empty(len(labels), np.int64)
    for position, (label, index) in enumerate(_schedule([len(queue) for queue in queues], seed)):
        order[position] = queues[label][index]
    return order


def _schedule(sizes: Sequence[int], seed: int) -> list[tuple[int, int]]:
    """The class, and the index within the class, at each position: earliest deadline first."""
    total = sum(sizes)
    # Breaking ties by class number would favour the first classes in every small subset.
    ties = _bits(seed, total + len(sizes))[total:].tolist()
    released: list[list[tuple[int, int, int, int]]] = [[] for _ in range(total)]
    for label, size in enumerate(sizes):
        for index in range(size):
            deadline = -(-(index + 1) * total // size)
            released[index * total // size].append((deadline, ties[label], label, index))
    waiting: list[tuple[int, int, int, int]] = []
    schedule = []
    for arrivals in released:
        for arrival in arrivals:
            heapq.heappush(waiting, arrival)
        _, _, label, index = heapq.heappop(waiting)
        schedule.append((label, index))
    return schedule


def manifest(
    subsets: Sequence[Subset],
    stage_names: Sequence[str],
    dataset: "Dataset",
    train_ids: Sequence[str],
    test_ids: Sequence[str],
    hashes: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """The contents of `subsets.json`: proof of the examples that each stage was trained on.

    `sha256` hashes the ordered ids; `content_sha256` and `labels_sha256` hash all images and labels of a split in the
    order on disk.

    Args:
      subsets: one for each stage.
      stage_names: their names, in the same order.
      dataset: the opened data set.
      train_ids: ids of all training examples in the order on disk.
      test_ids: ids of all test examples in the order on disk.
      hashes: of the splits on disk that the "train" and the "test" examples are from (`datasets.split_hashes`).
    """
    return {
        "dataset": dataset.name,
        "version": dataset.version,
        "train": split_entry(train_ids, hashes["train"]),
        "test": split_entry(test_ids, hashes["test"]),
        "stages": [
            _manifest_entry(name, subset, dataset.class_names)
            for name, subset in zip(stage_names, subsets, strict=True)
        ],
    }


def split_entry(ids: Sequence[str], hashes: Mapping[str, str]) -> dict[str, Any]:
    """What `subsets.json` says of all training or all test examples."""
    return {"count": len(ids), "sha256": hash_ids(ids), **hashes}


def agrees(recorded: Any, manifest: Mapping[str, Any]) -> bool:
    """Whether `subsets.json` says the same as a manifest, or a part of one.

    Older versions did not record every hash: one that is missing there may have any value.
    """
    return isinstance(recorded, dict) and all(
        _with_hashes(recorded.get(name), value) == value for name, value in manifest.items()
    )


def _with_hashes(recorded: Any, value: Any) -> Any:
    if not (isinstance(recorded, dict) and isinstance(value, dict)):
        return recorded
    missing = {name: each for name, each in value.items() if name.endswith("_sha256") and recorded.get(name) is None}
    return {**recorded, **missing}


def _manifest_entry(name: str, subset: Subset, class_names: Sequence[str]) -> dict[str, Any]:
    counts = subset.class_counts + (0,) * (len(class_names) - len(subset.class_counts))
    return {
        "name": name,
        "split": subset.split,
        "count": subset.count,
        "class_counts": dict(zip(class_names, counts, strict=True)),
        "sha256": subset.sha256,
    }
