"""The table of a comparison, and a verdict whose words follow its numbers and claim no more than they show."""

import io

import numpy as np
import pytest

from stepwise_jax.cli.study_tables import print_comparison
from stepwise_jax.studies.comparison_folder import arm_differences, read_finished_runs
from stepwise_jax.studies.comparison_table import (
    COMPARISON_HEADER,
    comparison_rows,
    format_interval,
    format_p_value,
    format_points,
    verdict,
)
from stepwise_jax.studies.statistics.paired import Difference, Interval, paired_differences
from tests.studies.example_comparison import compared, finish


def difference(other: str, mean: float, p_holm: float | None, seeds: int = 5) -> Difference:
    by_seed = dict.fromkeys(range(seeds), mean)
    interval = None if p_holm is None else Interval(mean - 0.01, mean + 0.01)
    return Difference(other, by_seed, mean, interval, p_holm, p_holm, None)


def test_nothing_finished():
    text = verdict("stepwise", [])
    assert text == "There is nothing to compare stepwise with yet: no seed has finished in both arms of a pair."


def test_one_seed_shows_nothing_however_large():
    text = verdict("stepwise", [difference("baseline", 0.2, None, seeds=1)])
    assert text.startswith("One seed shows no difference, whatever its numbers: baseline (+20.00)")
    assert "better" not in text
    assert "Take at least three" in text


def test_no_difference_shown():
    text = verdict("stepwise", [difference("baseline", 0.004, 0.21)])
    assert text.startswith("No difference shown between stepwise and baseline (+0.40, −0.60 to +1.40).")
    assert "better" not in text
    assert "worse" not in text
    assert "5 paired seeds; Holm-corrected at 5 %" in text


def test_better_worse_and_open_are_kept_apart():
    text = verdict("s", [difference("a", 0.03, 0.01), difference("b", -0.03, 0.02), difference("c", 0.01, 0.06)])
    open_, better, worse, how = text.split(". ")
    assert open_ == "No difference shown between s and c (+1.00, +0.00 to +2.00)"
    assert better == "s is better than a (+3.00, +2.00 to +4.00)"
    assert worse == "s is worse than b (−3.00, −4.00 to −2.00)"
    assert how.startswith("(Points of top-1")


@pytest.mark.parametrize(("p", "claims"), [(0.0499, True), (0.05, False), (0.0501, False), (None, False)])
def test_only_what_is_below_the_level_is_claimed(p, claims):
    assert ("is better than" in verdict("s", [difference("a", 0.5, p)])) is claims


def test_the_corrected_p_decides():
    """An interval that leaves out 0 for one comparison alone is no claim for several."""
    one = Difference("a", dict.fromkeys(range(4), 0.01), 0.01, Interval(0.001, 0.019), 0.03, 0.18, None)
    text = verdict("s", [one])
    assert text.startswith("No difference shown between s and a (+1.00, +0.10 to +1.90)")
    assert "better" not in text


def test_seeds_that_all_differ_by_the_same_are_no_proof():
    made = paired_differences({0: 0.5, 1: 0.6}, {"a": {0: 0.4, 1: 0.5}}, {}, {})
    text = verdict("s", made)
    assert text.startswith("No difference shown between s and a (+10.00).")
    assert "2 paired seeds" in text


def test_pairs_of_several_counts_are_reported_as_they_are():
    assert "over 1 to 5 paired seeds" in verdict("s", [difference("a", 0.1, None, 1), difference("b", 0.1, 0.5)])


def test_chance_alone_is_reported_as_no_difference():
    """Of many comparisons of equals, no more than one in twenty or so may claim anything."""
    random, claimed = np.random.default_rng(0), 0
    for _ in range(200):
        scores = random.normal(0.8, 0.01, (4, 5))
        runs = [dict(enumerate(each)) for each in scores.tolist()]
        made = paired_differences(runs[0], dict(zip("abc", runs[1:], strict=True)), {}, {})
        claimed += "better" in verdict("s", made) or "worse" in verdict("s", made)
    assert claimed <= 20


def test_numbers_as_people_read_them():
    assert format_points(0.0123) == "+1.23"
    assert format_points(-0.0123) == "−1.23"
    assert format_interval(None) == "–"
    assert format_interval(Interval(-0.0031, 0.012)) == "−0.31 to +1.20"
    assert [format_p_value(p) for p in (None, 0.0001, 0.0421, 1.0)] == ["–", "< 0.001", "0.042", "1.000"]


def test_the_table_has_the_numbers(tmp_path):
    three = compared("short", "baseline", "long [slow]", seeds=(0, 1))
    for seed, (ours, theirs) in enumerate([(40, 35), (41, 38)]):
        finish(tmp_path, "short", seed, ours)
        finish(tmp_path, "baseline", seed, theirs)
    runs = read_finished_runs(three, tmp_path)
    differences = arm_differences(three, runs)
    table = comparison_rows(three, runs, differences)
    assert all(len(row) == len(COMPARISON_HEADER) for row in table)
    assert table[0][:3] == ("short", "2", f"81.00 ± {100 * np.std([0.8, 0.82], ddof=1):.2f}")
    assert table[0][3:7] == ("–",) * 4
    assert table[1][3] == "+8.00"
    assert table[1][7:] == ("1,200", "30", "0:01:05")
    assert table[2] == ("long [slow]", "0", *("–",) * 8)
    stream = io.StringIO()
    print_comparison(three, runs, differences, stream)
    output = stream.getvalue()
    assert "long [slow]" in output
    assert "+8.00" in output
    assert "No difference shown between short and baseline (+8.00" in output


def test_an_empty_comparison_can_be_shown(tmp_path):
    two, stream = compared("short", "baseline"), io.StringIO()
    runs = read_finished_runs(two, tmp_path)
    print_comparison(two, runs, arm_differences(two, runs), stream)
    assert "nothing to compare short with yet" in stream.getvalue()
