"""The batches of a run by number: those of each epoch's order, which is computed once and ahead of its use."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stepwise_jax.data import sampler
from stepwise_jax.data.sampler import PlanSampler, epoch_order
from stepwise_jax.plans.stage import Stage

SEED = 3
STAGES = tuple(
    Stage(name=name, fraction=1.0, examples=examples, batch_size=4, learning_rate=0.1, epochs=epochs)
    for name, examples, epochs in (("A", 9, 2), ("B", 17, 3))
)
ROWS = [np.arange(9) * 2, np.arange(17) + 5]


@pytest.fixture
def computed(monkeypatch, request) -> list[tuple[int, int]]:
    """The stages and epochs whose order this test computed; a thread of an earlier test may still compute others."""
    found = []
    monkeypatch.setattr(sys.modules[__name__], "SEED", hash(request.node.nodeid) % 1000 + 10)

    def count(seed, stage, epoch, *rest):
        if seed == SEED:
            found.append((stage, epoch))
        return epoch_order(seed, stage, epoch, *rest)

    monkeypatch.setattr(sampler, "epoch_order", count)
    return found


def expected() -> list[list[int]]:
    epochs = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
    return [batch.tolist() for stage, epoch in epochs for batch in epoch_order(SEED, stage, epoch, ROWS[stage - 1], 4)]


def test_batches_are_those_of_the_epochs_orders_in_any_sequence():
    plan, batches = PlanSampler(SEED, STAGES, ROWS), expected()
    assert [plan[number].tolist() for number in range(len(plan))] == batches
    for number in np.random.default_rng(0).permutation(len(plan)).tolist():
        assert plan[number].tolist() == batches[number]


def test_threads_compute_each_order_once(computed):
    plan, start = PlanSampler(SEED, STAGES, ROWS), threading.Barrier(16)

    def batch(number: int) -> list[int]:
        start.wait()
        return plan[number].tolist()

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(batch, [number % 4 for number in range(16)]))
    assert found == expected()[:4] * 4
    plan[3]
    plan._orders._pool.shutdown()
    assert sorted(computed) == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize(("number", "ahead"), [(0, [(1, 1), (1, 2)]), (2, [(1, 2), (2, 1)]), (15, [(2, 3)])])
def test_the_next_epoch_is_computed_ahead(computed, number, ahead):
    plan = PlanSampler(SEED, STAGES, ROWS)
    plan[number]
    plan._orders._pool.shutdown()
    assert computed == ahead
