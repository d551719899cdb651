"""The power and the cost of a design, from a pilot with known differences."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from stepwise_jax.errors import InputError
from stepwise_jax.studies.comparison import Protocol
from stepwise_jax.studies.comparison_folder import open_comparison_folder
from stepwise_jax.studies.designs import outlook
from tests.studies.example_comparison import compared, finish, plans_of

NAMES = ("stepwise", "baseline", "cosine")
PLANNED = dataclasses.replace(compared(*NAMES, seeds=range(10)), protocol=Protocol(margin=5.0))


@pytest.fixture
def pilot(tmp_path):
    """Three seeds: stepwise is ahead of baseline by 1, 2 and 3 of 50 images."""
    open_comparison_folder(tmp_path, compared("baseline", "stepwise", "last_stage", seeds=(0, 1, 2)))
    for seed in range(3):
        finish(tmp_path, "stepwise", seed, 30 + seed)
        finish(tmp_path, "baseline", seed, 29)
    return tmp_path


def test_a_pilot_gives_deviations_and_seconds(pilot):
    found = outlook.read_pilot(pilot, PLANNED)
    deviation, seeds = found.deviations["baseline"]
    assert deviation == pytest.approx(np.std([0.02, 0.04, 0.06], ddof=1))
    assert (seeds, list(found.deviations)) == (3, ["baseline"])
    # 65 seconds and 1,200 samples a run.
    assert found.seconds_per_sample["stepwise"] == pytest.approx(65 / 1200)
    assert found.other_fields == ()


def test_the_table_has_power_and_cost(pilot):
    found = outlook.read_pilot(pilot, PLANNED)
    stages = plans_of(*NAMES, examples=1000)
    costs = outlook.plan_costs(PLANNED, stages, {"cosine": 600})
    header, rows = outlook.outlook_header(PLANNED), outlook.outlook_rows(PLANNED, costs, found)
    table = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(table) == [*NAMES, "all"]
    assert table["baseline"]["deviation"] == "2.00"
    assert table["cosine"]["deviation"] == "–"
    samples = 10 * sum(stage.updates * stage.batch_size for stage in stages["baseline"])
    assert table["baseline"]["samples fed"] == f"{samples:,}"
    assert table["baseline"]["hours"] == f"{samples * 65 / 1200 / 3600:.1f}"
    assert table["cosine"]["samples fed"] == f"{costs['cosine'].samples + 600:,}"

    shown, level = float(table["baseline"]["shown by 10 seeds"]) / 100, 0.05 / 2
    critical = stats.t.ppf(1 - level / 2, 9)
    power = stats.nct.sf(critical, 9, shown / 0.02 * math.sqrt(10))
    assert power == pytest.approx(0.8, abs=0.005)
    assert 2 < int(table["baseline"]["seeds for ± 5"]) < 10
    text = outlook.describe_outlook(PLANNED, found)
    assert "80 % power at a level of 0.025" in text
    assert "over 3 seeds" in text
    assert text.endswith("The pilot has already shown the results of seeds 0, 1, 2: --seed 3 takes others.")
    fresh = dataclasses.replace(PLANNED, seeds=tuple(range(3, 13)))
    assert "already shown" not in outlook.describe_outlook(fresh, found)


def test_without_a_pilot_it_says_what_is_not_known():
    costs = outlook.plan_costs(PLANNED, plans_of(*NAMES, examples=1000), {})
    rows = outlook.outlook_rows(PLANNED, costs, None)
    assert [row[1:4] for row in rows[1:3]] == [("–", "–", "–")] * 2
    assert {row[-1] for row in rows} == {"–"}
    text = outlook.describe_outlook(PLANNED, None)
    assert "the smallest difference that 10 seeds show, the seeds that the margin takes and the hours" in text


def test_a_pilot_without_pairs_is_refused(pilot, tmp_path):
    with pytest.raises(InputError, match="no two finished seeds of cosine and of another strategy"):
        outlook.read_pilot(pilot, compared("cosine", "baseline"))
    with pytest.raises(InputError, match=r"there is no folder"):
        outlook.read_pilot(tmp_path / "no", PLANNED)
