"""Holm's procedure word for word, and what looks add to false alarms."""

import itertools

import numpy as np
import pytest

from stepwise_jax.studies.statistics.multiplicity import false_alarm_bound, holm, strictest_level


def literal_holm(p_values: list[float], level: float) -> list[bool]:
    """Holm (1979) in his words: from the smallest on, reject while p <= level / (tests that are left)."""
    rejected = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected[place] = True
    return rejected


def closed_testing(p_values: list[float], level: float) -> list[bool]:
    """A hypothesis is rejected if Bonferroni's test rejects every intersection that it is part of."""
    every = [
        subset for size in range(1, len(p_values) + 1) for subset in itertools.combinations(range(len(p_values)), size)
    ]
    rejects = {subset: min(p_values[i] for i in subset) <= level / len(subset) for subset in every}
    return [all(rejects[subset] for subset in every if place in subset) for place in range(len(p_values))]


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_the_procedure_and_closed_testing_reject(seed):
    p_values = (np.random.default_rng(seed).random(6) ** 4).tolist()
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.1, 0.3):
        ours = [p is not None and p <= level for p in corrected]
        assert ours == literal_holm(p_values, level) == closed_testing(p_values, level)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None, 0.02, None, 0.01]) == [None, pytest.approx(0.02), None, pytest.approx(0.02)]
    assert holm([0.01, None, 0.03], looks=2) == [pytest.approx(0.04), None, pytest.approx(0.06)]


def test_planned_looks_keep_the_rate_and_others_add_to_it():
    assert false_alarm_bound(1, 1) == false_alarm_bound(3, 3) == 0.05
    assert false_alarm_bound(3, 1) == pytest.approx(0.05 / 3)
    assert false_alarm_bound(1, 2) == pytest.approx(0.075)
    assert false_alarm_bound(2, 4) == pytest.approx(0.05 * (1 + 1 / 3 + 1 / 4))
    assert strictest_level(5, looks=2) == pytest.approx(0.005)
