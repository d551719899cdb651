"""Streamed batches are the resident ones, wherever they start, and the buffer stays within its limit."""

import threading
import time

import numpy as np
import pytest
from conftest import Recorder

from stepwise_jax.data import loaders
from stepwise_jax.data.batches import ImageBatch
from stepwise_jax.data.loaders import ResidentLoader, StreamingLoader, buffer_length, place_resident
from stepwise_jax.data.placement import choose_placement
from stepwise_jax.data.sampler import PlanSampler, epoch_order
from stepwise_jax.experiment.serialization import flatten_fields
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import sharding
from stepwise_jax.workdir.record_file import read_records

MESH = sharding.make_mesh()
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 4, 5, 3), dtype=np.uint8)
LABELS = np.arange(50, dtype=np.int32)[::-1].copy()
STAGES = (
    Stage("A", 0.5, 25, 4, 0.1, epochs=2),
    Stage("O", 1.0, 50, 7, 0.1, epochs=3),
)
SUBSETS = (np.arange(25), np.arange(50))


class Reader:
    """Reads the images, and counts how."""

    def __init__(self, delay: float = 0.0):
        self.delay, self.rows, self.threads = delay, [], set()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.rows.append(rows.tolist())
        self.threads.add(threading.get_ident())
        time.sleep(self.delay)
        return IMAGES[rows]


def plan_sampler() -> PlanSampler:
    return PlanSampler(3, STAGES, SUBSETS)


def streamed(reader: Reader, workers: int = 3) -> StreamingLoader:
    return StreamingLoader(reader, LABELS, (4, 5, 3), MESH, workers)


def test_a_few_images_come_back_to_the_host():
    rows = np.array([49, 3, 3, 0])
    for sharded in (False, True):
        resident = ResidentLoader(place_resident(IMAGES, LABELS, MESH, sharded=sharded), MESH)
        np.testing.assert_array_equal(resident.images(rows), IMAGES[rows])
    np.testing.assert_array_equal(streamed(Reader()).images(rows), IMAGES[rows])


def test_the_order_of_a_plan_is_its_epochs_one_after_the_other():
    sampler = plan_sampler()
    epochs = [
        epoch_order(3, stage, epoch, SUBSETS[stage - 1], STAGES[stage - 1].batch_size)
        for stage, last in ((1, 2), (2, 3))
        for epoch in range(1, last + 1)
    ]
    batches = [batch.tolist() for epoch in epochs for batch in epoch]
    assert len(sampler) == len(batches) == 2 * 6 + 3 * 7
    assert [sampler[update].tolist() for update in range(len(sampler))] == batches
    assert [sampler[update].tolist() for update in reversed(range(len(sampler)))] == batches[::-1]
    for outside in (-1, len(sampler)):
        with pytest.raises(IndexError):
            sampler[outside]


@pytest.mark.parametrize("start", [0, 5, 11, 12, 32])
@pytest.mark.parametrize("steps", [1, 3])
def test_streamed_batches_are_the_resident_ones_from_any_update_on(start, steps):
    sampler, reader = plan_sampler(), Reader()
    resident = ResidentLoader(place_resident(IMAGES, LABELS, MESH, sharded=False), MESH)
    for first, last in ((start, min(12, len(sampler))), (max(start, 12), len(sampler))):
        calls = [range(number, min(number + steps, last)) for number in range(first, last, steps)]
        loader = streamed(reader)
        for rows, pixels in zip(
            resident.stacked_batches(sampler, calls), loader.stacked_batches(sampler, calls), strict=True
        ):
            assert isinstance(pixels, ImageBatch)
            np.testing.assert_array_equal(pixels.images, IMAGES[np.asarray(rows)])
            np.testing.assert_array_equal(pixels.labels, LABELS[np.asarray(rows)])
            assert (pixels.images.dtype, pixels.labels.dtype) == (np.uint8, np.int32)
        loader.close()


def test_nothing_before_the_start_is_read():
    sampler, reader = plan_sampler(), Reader()
    loader = streamed(reader)
    next(loader.stacked_batches(sampler, [[20]]))
    loader.close()
    assert {tuple(rows) for rows in reader.rows} <= {
        tuple(sampler[update].tolist()) for update in range(20, len(sampler))
    }


def test_one_set_of_threads_reads_over_epochs_and_stages_and_every_batch_once():
    sampler, reader = plan_sampler(), Reader()
    loader = streamed(reader, workers=2)
    for first, last in ((0, 6), (6, 12), (12, 19), (19, 26), (26, 33)):
        assert len(list(loader.stacked_batches(sampler, ([update] for update in range(first, last))))) == last - first
    loader.close()
    assert sorted(reader.rows) == sorted(sampler[update].tolist() for update in range(len(sampler)))
    assert len(reader.threads) <= 2


def test_batches_wait_within_bounds(monkeypatch):
    reader, sampler = Reader(), np.arange(50, dtype=np.int32).reshape(25, 2)
    monkeypatch.setattr(loaders, "BUFFER_BYTES", 5 * 2 * 4 * 5 * 3)
    loader = streamed(reader, workers=2)
    next(loader.stacked_batches(sampler, [[0]]))
    time.sleep(0.3)
    assert len(reader.rows) <= 1 + 5 + 2, "one taken, five waiting, one in progress in each thread"
    loader.close()


def test_the_largest_batch_of_a_plan_sets_the_bounds(monkeypatch):
    reader, sampler = Reader(), plan_sampler()
    assert sampler.largest_batch == 7
    monkeypatch.setattr(loaders, "BUFFER_BYTES", 2 * 7 * 4 * 5 * 3)
    loader = streamed(reader, workers=2)
    next(loader.stacked_batches(sampler, [[0]]))
    time.sleep(0.3)
    assert len(reader.rows) <= 1 + 2 + 2
    loader.close()


def test_the_buffer_is_bounded_by_bytes_and_never_empty():
    assert buffer_length(16, 1) == 64
    assert buffer_length(16, loaders.BUFFER_BYTES // 10) == 10
    assert buffer_length(16, 2 * loaders.BUFFER_BYTES) == 1


def test_an_image_that_cannot_be_read_raises_where_it_is_needed():
    def broken(rows: np.ndarray) -> np.ndarray:
        raise ValueError(f"image {rows[0]} is damaged")

    loader = StreamingLoader(broken, LABELS, (4, 5, 3), MESH, 2)
    with pytest.raises(ValueError, match=r"image \d+ is damaged"):
        next(loader.stacked_batches(plan_sampler(), [[0]]))
    loader.close()


@pytest.mark.parametrize(
    ("requested", "needed", "devices", "kind"),
    [
        ("auto", 25, 1, "replicated"),
        ("auto", 26, 1, "streamed"),
        ("auto", 26, 4, "sharded"),
        ("auto", 100, 4, "sharded"),
        ("auto", 101, 4, "streamed"),
        ("resident", 101, 1, "replicated"),
        ("resident", 101, 4, "sharded"),
        ("streamed", 1, 1, "streamed"),
    ],
)
def test_placement_depends_on_size_unless_it_is_requested(requested, needed, devices, kind):
    assert choose_placement(requested, needed, 100, devices).kind == kind


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_a_streamed_run_is_the_resident_run_to_the_bit(train, tmp_path, steps_per_call):
    changes = {"steps_per_call": steps_per_call, "data.normalisation": "dataset"}
    runs = {kind: train(tmp_path / kind, **changes, **{"data.delivery": kind}) for kind in ("resident", "streamed")}
    assert runs["streamed"]["state_sha256"] == runs["resident"]["state_sha256"]
    records_of = {kind: read_records(tmp_path / kind) for kind in runs}
    rows = [[{**row, "seconds": None} for row in records.epochs] for records in records_of.values()]
    assert rows[0] == rows[1]


def test_placement_is_reported_and_may_change_between_two_processes_of_a_run(train, tmp_path, experiment):
    display = Recorder()
    first = train(tmp_path, display=display, **{"data.delivery": "streamed"})
    assert any("streamed" in message for message in display.messages)
    assert train(tmp_path, **{"data.delivery": "resident", "data.workers": 2}) == first
    assert "data.delivery" in flatten_fields(experiment)
