"""The cost of a target, from records of epochs."""

from stepwise_jax.studies.statistics.target import Reached, first_reaching, shared_target

EPOCHS = [
    {"top1": 0.3, "examples_seen": 100, "seconds": {"train": 1.0, "compile": 5.0}},
    {"top1": None, "examples_seen": 200, "seconds": {"train": 1.0}},
    {"top1": 0.6, "examples_seen": 300, "seconds": {"train": 1.5}},
    {"top1": 0.5, "examples_seen": 400, "seconds": {"train": 1.5}},
    {"top1": 0.7, "examples_seen": 500, "seconds": {"train": 1.5}},
]


def test_the_first_epoch_that_reaches_it_counts():
    assert first_reaching(EPOCHS, 0.3) == Reached(1, 100, 6.0)
    assert first_reaching(EPOCHS, 0.5) == first_reaching(EPOCHS, 0.6) == Reached(3, 300, 8.5)
    assert first_reaching(EPOCHS, 0.65) == Reached(5, 500, 11.5)
    assert first_reaching(EPOCHS, 0.71) is None
    assert first_reaching([], 0.1) is None


def test_every_run_reaches_the_shared_target():
    assert shared_target([EPOCHS, EPOCHS[:4]]) == 0.6
    assert shared_target([EPOCHS, EPOCHS[1:2]]) is None
    assert shared_target([]) is None
