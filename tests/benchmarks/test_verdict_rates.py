"""The false-alarm rates of verdicts are what they claim: fewer comparisons than the benchmark's, fixed seeds."""

import math

import numpy as np
import pytest
from verdict_rates import SCENARIOS, Scenario, measure, table_row

COMPARISONS = 1000
ERROR = 3 * math.sqrt(0.05 * 0.95 / COMPARISONS)
"""Three standard errors of a rate of 5 %: 2.1 %."""


def rates(scenario: Scenario):
    return measure(scenario, COMPARISONS, np.random.default_rng(1))


@pytest.mark.parametrize("arms", [1, 4])
def test_equal_arms_are_called_better_or_worse_in_5_percent_of_comparisons(arms):
    found = rates(Scenario("", (0.0,) * arms, 2.0))
    assert found.false_difference == pytest.approx(0.05, abs=ERROR)
    assert found.false_equivalence == 0


@pytest.mark.parametrize("arms", [1, 4])
def test_arms_at_the_margin_are_called_equivalent_in_5_percent_of_comparisons(arms):
    found = rates(Scenario("", (1.0, -1.0, 1.0, -1.0)[:arms], 0.3))
    assert found.false_equivalence == pytest.approx(0.05, abs=ERROR)
    assert found.false_difference == 0
    assert found.decided > 0.8


def test_planned_looks_keep_the_rate_and_unplanned_looks_are_known_to_exceed_it():
    planned = rates(Scenario("", (0.0,), 2.0, (5, 8, 11)))
    assert 0.02 < planned.false_difference < planned.claimed + ERROR
    assert planned.claimed == 0.05
    unplanned = rates(Scenario("", (0.0,), 2.0, (5, 8, 11), planned=False))
    assert 0.05 < unplanned.false_difference < unplanned.claimed + ERROR
    assert unplanned.claimed == pytest.approx(0.05 * (1 + 1 / 2 + 1 / 3))


def test_the_seeds_asked_for_decide_and_keep_the_rate():
    for truth, kind in ((0.0, "false_difference"), (1.0, "false_equivalence")):
        found = rates(Scenario("", (truth,), 0.45, (5, 0)))
        assert getattr(found, kind) < 0.05 + ERROR
        assert found.decided > 0.9


def test_each_scenario_has_a_row():
    found = measure(SCENARIOS[4], 20, np.random.default_rng(0))
    row = table_row(SCENARIOS[4], found)
    assert row[:2] == ("7 arms, some of each", "5")
    assert [cell[-1] for cell in row[2:]] == ["%"] * 4
