"""Images with identical pixels within a data set: found when it is written, and kept in its metadata."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from stepwise_jax.data.dataset import Dataset
from stepwise_jax.data.source import shorten
from stepwise_jax.errors import InputError


class _Place(NamedTuple):
    """Where an image is: its split, its row on disk, its label and its id."""

    split: str
    row: int
    label: int
    id: str


class DuplicateFinder:
    """Collects the images of a data set while they are written, in the order on disk."""

    def __init__(self):
        self._first: dict[bytes, _Place] = {}
        self._groups: dict[bytes, list[_Place]] = {}
        self._rows: dict[str, int] = {}

    def add(self, split: str, label: int, name: str, pixels: bytes) -> None:
        """Add the next image of a split, by a hash of its pixels."""
        row = self._rows.get(split, 0)
        self._rows[split] = row + 1
        place = _Place(split, row, label, name)
        first = self._first.setdefault(pixels, place)
        if first is not place:
            self._groups.setdefault(pixels, [first]).append(place)

    def document(self) -> dict[str, Any]:
        """The groups of identical images, as the metadata keep them: rows on disk by split."""
        return {"groups": [_group(places) for places in self._groups.values()]}

    def notes(self, name: str) -> list[str]:
        """Sentences with the numbers of identical images and a few of each kind; none if all images differ."""
        groups = list(self._groups.values())
        kinds = {
            "test images that are also in training": [*_shared(groups)],
            "images whose copy has the label of another class": [*_conflicting(groups)],
            "further copies within a class of one split": [*_repeated(groups)],
        }
        notes = [
            f"{name}: {kind}: {len(pairs)} ({shorten([f'{one.id!r} = {other.id!r}' for one, other in pairs], 3)})"
            for kind, pairs in kinds.items()
            if pairs
        ]
        advice = (
            "data.duplicates uses identical images as they are (warn), keeps copies out of training (drop), or refuses"
        )
        return [*notes, advice] if notes else []


def _group(places: Sequence[_Place]) -> dict[str, Any]:
    rows = {split: [place.row for place in places if place.split == split] for split in ("train", "test")}
    return rows | {"conflict": len({place.label for place in places}) > 1}


_Pairs = Iterator[tuple[_Place, _Place]]
"""Each counted image, with one of its copies."""


def _shared(groups: Sequence[Sequence[_Place]]) -> _Pairs:
    for places in groups:
        train = next((place for place in places if place.split == "train"), None)
        if train is not None:
            yield from ((place, train) for place in places if place.split == "test")


def _conflicting(groups: Sequence[Sequence[_Place]]) -> _Pairs:
    for places in groups:
        for place in places:
            other = next((each for each in places if each.label != place.label), None)
            if other is not None:
                yield place, other


def _repeated(groups: Sequence[Sequence[_Place]]) -> _Pairs:
    for places in groups:
        first: dict[tuple[str, int], _Place] = {}
        for place in places:
            other = first.setdefault((place.split, place.label), place)
            if other is not place:
                yield place, other


def choose_images(dataset: Dataset, choice: Literal["warn", "drop", "refuse"]) -> Dataset:
    """The data set as `data.duplicates` says: as it is, or with `left_out` rows of the training split.

    "drop" leaves out training images that are also test images, all but the first of those with the same label, and all
    of those with contradicting labels.

    Raises:
      InputError: where identical images are refused, or were not searched for.
    """
    if choice == "warn":
        return dataset
    metadata = dataset.builder.info.metadata or {}
    folder = str(dataset.builder.data_dir)
    if "duplicates" not in metadata:
        raise InputError(
            f"data.duplicates is {choice!r}: {folder!r} was prepared by TFDS or by version 0.1, which do not look for "
            "identical images; if it is one of ours, remove it and prepare it again"
        )
    groups = metadata["duplicates"]["groups"]
    if choice == "refuse" and groups:
        count = sum(len(group["train"]) + len(group["test"]) for group in groups)
        shared = sum(len(group["test"]) for group in groups if group["train"])
        raise InputError(
            f"data.duplicates is 'refuse': {count} images of {dataset.name} have identical copies, and {shared} test "
            "images are also in training; remove them, or choose 'warn' or 'drop'"
        )
    left_out = _left_out(groups)
    if len(left_out) == dataset.builder.info.splits["train"].num_examples:
        raise InputError(f"data.duplicates is 'drop': all training images of {dataset.name} are copies")
    return dataclasses.replace(dataset, left_out=left_out)


def _left_out(groups: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    rows = (group["train"] if group["test"] or group["conflict"] else sorted(group["train"])[1:] for group in groups)
    return tuple(sorted(row for part in rows for row in part))


def count_shared(dataset: Dataset, train: Sequence[int], scored: Sequence[int], split: str) -> int:
    """How many of the scored images are also among the training images.

    Args:
      dataset: an opened data set.
      train: rows on disk of the training split that are trained on.
      scored: rows on disk that are scored.
      split: the split on disk that they are from: "test", or "train" where some of it is held out.
    """
    groups = ((dataset.builder.info.metadata or {}).get("duplicates") or {}).get("groups")
    if not groups:
        return 0
    trained, tested = _mask(dataset, "train", train), _mask(dataset, split, scored)
    copied = [group for group in groups if any(trained[row] for row in group["train"])]
    return sum(int(tested[row]) for group in copied for row in group[split])


def _mask(dataset: Dataset, split: str, rows: Sequence[int]) -> np.ndarray:
    """Whether each row of a split on disk is among `rows`."""
    stored = dataset.test_split if split == "test" else split
    mask = np.zeros(dataset.builder.info.splits[stored].num_examples, bool)
    mask[np.asarray(rows, np.int64)] = True
    return mask
