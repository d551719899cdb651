"""The nested subsets, at every boundary, for all three draws."""

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from data_files import quiet

from stepwise_jax.data import datasets, subsets
from stepwise_jax.data.prepared import writing
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import DataConfig

DRAWS = ("tfds", "seeded", "stratified")
COUNTS = (287, 575, 862, 1150, 1437)


@pytest.fixture
def digits(tmp_path):
    data = DataConfig(name="digits", data_dir=str(tmp_path))
    datasets.prepare(data, quiet)
    return datasets.open_dataset(data)


def drawn(dataset, data_draw, counts=COUNTS, seed=0):
    labels, ids = datasets.labels_and_ids(dataset, "train")
    return subsets.draw(data_draw, seed, labels, ids, counts, dataset.builder), labels, ids


@pytest.mark.parametrize("data_draw", DRAWS)
def test_sizes_and_nesting_at_every_boundary(digits, data_draw):
    parts, labels, _ = drawn(digits, data_draw)
    for part, count in zip(parts, COUNTS, strict=True):
        assert part.count == len(part.rows) == len(set(part.rows.tolist())) == count
        assert part.class_counts == tuple(np.bincount(labels[part.rows], minlength=10))
    for smaller, larger in pairwise(parts):
        assert smaller.rows.tolist() == larger.rows[: smaller.count].tolist()
    assert sorted(parts[-1].rows.tolist()) == list(range(1437))


@pytest.mark.parametrize("data_draw", DRAWS)
def test_every_count_is_a_prefix_of_the_next(digits, data_draw):
    parts, _, _ = drawn(digits, data_draw, range(1, 1438))
    whole = parts[-1].rows
    assert all(part.rows.tolist() == whole[:count].tolist() for count, part in enumerate(parts, 1))


@pytest.mark.parametrize("data_draw", DRAWS)
def test_a_smaller_subset_is_a_prefix_of_the_larger_whichever_comes_first(digits, data_draw):
    (larger, smaller, again), _, _ = drawn(digits, data_draw, (1150, 287, 1150))
    assert smaller.rows.tolist() == larger.rows[:287].tolist()
    assert (again.split, again.sha256) == (larger.split, larger.sha256)


@pytest.mark.parametrize("shard_bytes", [1 << 27, 10_000])
def test_tfds_rows_are_what_tfds_yields(tmp_path, monkeypatch, shard_bytes):
    monkeypatch.setattr(writing, "_SHARD_BYTES", shard_bytes)
    data = DataConfig(name="digits", data_dir=str(tmp_path))
    datasets.prepare(data, quiet)
    dataset = datasets.open_dataset(data)
    assert (len(dataset.builder.info.splits["train"].shard_lengths) > 1) == (shard_bytes == 10_000)
    parts, _, ids = drawn(dataset, "tfds")
    for part in parts:
        yielded = [example["id"].decode() for example in dataset.builder.as_data_source(split=part.split)]
        assert yielded == [ids[row] for row in part.rows]


def test_splits_are_named(digits):
    assert [part.split for part in drawn(digits, "tfds")[0]][:2] == ["train[:287]", "train[:575]"]
    assert drawn(digits, "seeded", seed=7)[0][0].split == "seeded:7[:287]"
    assert drawn(digits, "stratified")[0][4].split == "stratified:0[:1437]"


def test_hashes_are_stable(digits):
    # These change only with the version of the digits or with a draw: runs recorded before could not be compared.
    hashes = {draw: drawn(digits, draw)[0][0].sha256[:16] for draw in DRAWS}
    assert hashes == {"tfds": "f3563ba807c947ea", "seeded": "f7eca1bb9b136740", "stratified": "ff53bf4e3abc45bf"}


def test_hash_is_of_the_ordered_names():
    expected = hashlib.sha256("a/ä.png\0b\0".encode()).hexdigest()
    assert subsets.hash_ids(["a/ä.png", "b"]) == expected
    assert subsets.hash_ids(["b", "a/ä.png"]) != expected
    assert subsets.hash_ids(["ab", "c"]) != subsets.hash_ids(["a", "bc"])


def test_seeded_order_is_a_function_of_the_seed():
    assert subsets.seeded_order(0, 10).tolist() == [2, 7, 0, 1, 3, 5, 4, 8, 6, 9]
    assert subsets.seeded_order(1, 10).tolist() == [5, 0, 4, 7, 3, 9, 2, 8, 6, 1]
    assert subsets.seeded_order(2**32 - 1, 10).tolist() != subsets.seeded_order(0, 10).tolist()


def test_seeded_subsets_differ_between_seeds(digits):
    hashes = {drawn(digits, draw, seed=seed)[0][0].sha256 for draw in ("seeded", "stratified") for seed in range(5)}
    assert len(hashes) == 10
    assert len({drawn(digits, "tfds", seed=seed)[0][0].sha256 for seed in range(3)}) == 1


@pytest.mark.parametrize("trial", range(40))
def test_every_stratified_prefix_is_within_one_of_each_share(trial):
    random = np.random.default_rng(trial)
    sizes = random.integers(1, 80, random.integers(1, 30))
    if trial % 4 == 0:
        sizes = np.array([300, *[1] * len(sizes)])
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = subsets.stratified_order(trial, labels)
    assert sorted(order.tolist()) == list(range(len(labels)))
    counts = np.cumsum(np.eye(len(sizes))[labels[order]], axis=0)
    shares = np.arange(1, len(labels) + 1)[:, None] * sizes / len(labels)
    assert np.abs(counts - shares).max() < 1


def test_stratified_does_not_favour_the_first_classes():
    labels = np.repeat(np.arange(10), 10)
    firsts = {int(labels[subsets.stratified_order(seed, labels)[0]]) for seed in range(50)}
    assert len(firsts) >= 8


@pytest.mark.parametrize("counts", [(0, 4), (4, 0), (5,), (-1,)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(InputError, match="subsets of"):
        subsets.draw("seeded", 0, np.array([0, 1, 0, 1]), ("a", "b", "c", "d"), counts)


def test_manifest_lists_what_each_stage_saw(digits):
    parts, labels, ids = drawn(digits, "stratified")
    test_ids = datasets.labels_and_ids(digits, "test")[1]
    hashes = {split: datasets.split_hashes(digits, split) for split in ("train", "test")}
    manifest = subsets.manifest(parts, ["A", "B", "C", "D", "O"], digits, ids, test_ids, hashes)
    assert manifest["dataset"] == "digits"
    examples = datasets.load(digits, "test", 8, quiet)
    content = hashlib.sha256(b"".join(hashlib.sha256(image.tobytes()).digest() for image in examples.images))
    assert manifest["test"] == {
        "count": 360,
        "sha256": subsets.hash_ids(test_ids),
        "content_sha256": content.hexdigest(),
        "labels_sha256": hashlib.sha256(examples.labels.astype("<i8").tobytes()).hexdigest(),
    }
    assert (manifest["train"]["count"], manifest["train"]["sha256"]) == (1437, subsets.hash_ids(ids))
    assert [stage["name"] for stage in manifest["stages"]] == ["A", "B", "C", "D", "O"]
    assert [stage["count"] for stage in manifest["stages"]] == list(COUNTS)
    expected = {str(label): int(count) for label, count in enumerate(np.bincount(labels))}
    assert manifest["stages"][4]["class_counts"] == expected
    assert manifest["stages"][0]["sha256"] == parts[0].sha256


def test_hashes_that_an_older_version_did_not_record_may_have_any_value():
    ours = {"train": {"count": 2, "sha256": "a", "content_sha256": "b", "labels_sha256": "c"}, "dataset": "made"}
    older = {"train": {"count": 2, "sha256": "a", "content_sha256": None}, "dataset": "made", "stages": []}
    assert subsets.agrees(older, ours)
    assert subsets.agrees(ours, ours)
    for changes in ({"count": 3}, {"sha256": "x"}, {"content_sha256": "x"}, {"labels_sha256": "x"}):
        assert not subsets.agrees({**ours, "train": {**ours["train"], **changes}}, ours)
    assert not subsets.agrees({**older, "dataset": "other"}, ours)
    for damaged in ([], None, {}, {"train": [], "dataset": "made"}):
        assert not subsets.agrees(damaged, ours)
