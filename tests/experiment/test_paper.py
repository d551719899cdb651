"""The paper's results: complete tables, known printing errors, and a configuration that reproduces each row."""

from decimal import Decimal
from pathlib import Path

import pytest

from stepwise_jax.experiment.config_files import load_config, load_rows
from stepwise_jax.experiment.paper import PAPER_RESULTS, find_result

CONFIGS = [str(path) for path in sorted((Path(__file__).parents[2] / "configs").glob("[a-z]*.py"))]
TEST_IMAGES = {"CIFAR-100": 10_000, "Birdsnap": 2_443, "Food-101": 25_250, "COVID-19 mask / no mask": 639}
DECIMALS = {"CIFAR-100": 2, "Birdsnap": 4, "Food-101": 4, "COVID-19 mask / no mask": 2}

# (key, stage or None for the row itself, score): scores that no number of correct test images gives.
PRINTING_ERRORS = {
    *((key, None, score) for key in PAPER_RESULTS if key.startswith("III-") for score in ("top1", "top5")),
    ("IV-scratch/baseline", None, "top1"),
    ("IV-imagenet/C", None, "top1"),
    ("V-b16/stepwise", "C", "top5"),
    ("VI/baseline", None, "top5"),
    ("VII-b16/ends_5b", None, "top1"),
    ("VII-b16/ends_5b", "O", "top1"),
}


def scores():
    for key, row in PAPER_RESULTS.items():
        for stage in (None, *row.stages):
            for name in ("top1", "top5"):
                value = getattr(stage or row, name)
                if value is not None:
                    yield (key, stage and stage.name, name), row.dataset, value


def is_a_fraction(percent: float, images: int, decimals: int) -> bool:
    """Whether some number of correct images gives this score, to within one unit of the last decimal."""
    correct = round(percent * images / 100)
    return abs(Decimal(100 * correct) / images - Decimal(str(percent))) < Decimal(10) ** -decimals


def test_scores_are_fractions_of_the_test_set_except_for_known_errors():
    found = {place for place, data, value in scores() if not is_a_fraction(value, TEST_IMAGES[data], DECIMALS[data])}
    assert found == PRINTING_ERRORS


def test_each_error_has_a_note():
    assert all(PAPER_RESULTS[key].notes for key, _, _ in PRINTING_ERRORS)
    assert any("96.1069" in note for note in PAPER_RESULTS["V-b16/stepwise"].notes)
    assert any("2b" in note for note in PAPER_RESULTS["masks/A-O"].notes)
    masks = [row for row in PAPER_RESULTS.values() if row.dataset.startswith("COVID")]
    assert all(any("539" in note and "639" in note for note in row.notes) for row in masks)


@pytest.mark.parametrize("text_score", [99.5305, 98.4351])
def test_the_scores_in_the_text_show_the_number_of_test_images(text_score):
    """Of the two numbers that the paper could mean, 539 and 639, only the latter gives these scores."""
    assert is_a_fraction(text_score, 639, 4)
    assert not is_a_fraction(text_score, 539, 4)


def test_stages_end_with_the_row():
    for row in PAPER_RESULTS.values():
        assert not row.stages or (row.stages[-1].top1, row.stages[-1].top5) == (row.top1, row.top5)


# The number of rows, then the sums of the printed columns: top-1 and top-5 of the rows and of the stages.
@pytest.mark.parametrize(
    ("table", "rows", "top1", "top5", "stages_top1", "stages_top5"),
    [
        ("Table I", 7, "378.89", "575.29", "0", "0"),
        ("Section IV-B.2", 4, "264.59", "179.80", "0", "0"),
        ("Table II", 4, "265.77", "358.19", "0", "0"),
        ("Table III", 4, "248.3803", "337.5190", "0", "0"),
        ("Table IV", 14, "790.0231", "1056.2456", "561.9880", "764.8634"),
        ("Table V, b = 12", 2, "170.6099", "193.7030", "410.2020", "478.2495"),
        ("Table V, b = 16", 2, "171.5009", "193.6872", "411.9762", "391.42849"),
        ("Table VI", 2, "172.1070", "193.3525", "245.4891", "286.5030"),
        ("Table VII, b = 16", 3, "298.41", "0", "987.93", "0"),
        ("Table VII, b = 24", 5, "496.88", "0", "1965.12", "0"),
        ("Section IV-C", 2, "197.9656", "0", "0", "0"),
    ],
)
def test_tables_are_complete(table, rows, top1, top5, stages_top1, stages_top5):
    found = [row for row in PAPER_RESULTS.values() if row.table == table]
    assert len(found) == rows
    assert (_sum(found, "top1"), _sum(found, "top5")) == (Decimal(top1), Decimal(top5))
    stages = [stage for row in found for stage in row.stages]
    assert (_sum(stages, "top1"), _sum(stages, "top5")) == (Decimal(stages_top1), Decimal(stages_top5))


def _sum(scores, name):
    return sum(Decimal(str(getattr(score, name) or 0)) for score in scores)


def test_each_row_is_reproduced_by_one_configuration():
    rows = [row.reproduces for path in CONFIGS for row in load_rows(path).values() if row.reproduces]
    assert sorted(rows) == sorted(PAPER_RESULTS)
    own = {load_config(path).reproduces for path in CONFIGS} - {""}
    assert own <= set(rows)


def test_a_key_finds_its_row_and_an_unknown_key_none():
    row = find_result("IV-imagenet/stepwise")
    assert row is not None
    assert (row.table, row.top1, row.stages[1].top5) == ("Table IV", 86.7089, 94.3842)
    assert find_result("VIII/baseline") is None
