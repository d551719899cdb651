"""The cost of a target, from records of epochs."""

from stepwise_jax.studies.statistics.target import Reached, first_reaching, median_cost

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


def test_a_run_that_never_reaches_it_costs_more_than_any_other():
    cheap, middle, dear = Reached(1, 100, 9.0), Reached(2, 200, 7.0), Reached(3, 300, 8.0)
    assert median_cost([dear, cheap, middle]) == Reached(2, 200, 8.0)
    assert median_cost([None, cheap, middle]) == Reached(2, 200, 9.0)
    assert median_cost([None, cheap, None]) is None
    assert median_cost([None, cheap]) == cheap
    assert median_cost([dear, cheap]) == Reached(1, 100, 8.0)
    assert median_cost([]) is None
