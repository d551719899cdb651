"""The table of a comparison, and a verdict whose words follow its numbers and claim no more than they show."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepwise_jax.cli.study_tables import print_comparison
from stepwise_jax.studies.comparison import Comparison
from stepwise_jax.studies.comparison_folder import arm_differences, read_finished_runs
from stepwise_jax.studies.comparison_table import (
    COMPARISON_HEADER,
    FinishedRuns,
    comparison_rows,
    format_interval,
    format_p_value,
    format_points,
    verdict,
)
from stepwise_jax.studies.statistics.paired import Difference, paired_differences
from stepwise_jax.studies.statistics.student import Interval
from tests.studies.example_comparison import compared, finish


def difference(
    other: str, mean: float, p_holm: float | None, seeds: int = 5, p_equivalent: float = 0.5, total: int | None = 12
) -> Difference:
    by_seed = dict.fromkeys(range(seeds), mean)
    interval = None if p_holm is None else Interval(mean - 0.01, mean + 0.01)
    return Difference(
        other, by_seed, mean, interval, p_holm, p_holm, None, p_equivalent=p_equivalent, seeds_to_decide=total
    )


def test_nothing_finished():
    text = verdict("stepwise", [])
    assert text == "There is nothing to compare stepwise with yet: no seed has finished in both arms of a pair."


def test_one_seed_shows_nothing_however_large():
    text = verdict("stepwise", [difference("baseline", 0.2, None, seeds=1)])
    assert text.startswith("One seed shows no difference, whatever its numbers: baseline (+20.00)")
    assert "better" not in text
    assert "Take at least three" in text


def test_undecided():
    text = verdict("stepwise", [difference("baseline", 0.004, 0.21)])
    assert text.startswith("Not decided between stepwise and baseline (+0.40, −0.60 to +1.40; 7 seeds more would).")
    assert "better" not in text
    assert "worse" not in text
    assert "5 paired seeds; Holm-corrected at 5 %." in text


@pytest.mark.parametrize(
    ("total", "words"),
    [(6, "; 1 seed more would)"), (1000, "; 995 seeds more would)"), (None, "; more than 1,000 seeds")],
)
def test_how_many_seeds_would_decide(total, words):
    assert words in verdict("s", [difference("a", 0.004, 0.2, total=total)])


def test_two_seeds_do_not_say_how_many_more_would():
    assert "would" not in verdict("s", [difference("a", 0.004, 0.2, seeds=2)])
    assert "; 9 seeds more would)" in verdict("s", [difference("a", 0.004, 0.2, seeds=3)])


def test_the_four_answers_are_kept_apart():
    open_, even = difference("c", 0.01, 0.06), difference("d", 0.002, 0.4, p_equivalent=0.01)
    text = verdict("s", [open_, even, difference("a", 0.03, 0.01), difference("b", -0.03, 0.02)])
    better, worse, equivalent, undecided, how = text.split(". ")
    assert better == "s is better than a (+3.00, +2.00 to +4.00)"
    assert worse == "s is worse than b (−3.00, −4.00 to −2.00)"
    assert equivalent == "s is equivalent within ± 1.00 to d (+0.20, −0.80 to +1.20)"
    assert undecided == "Not decided between s and c (+1.00, +0.00 to +2.00; 7 seeds more would)"
    assert how.startswith("(Points of top-1")


def test_looks_are_named():
    scores = {0: 0.5, 1: 0.61, 2: 0.7}
    made = paired_differences(scores, {"a": {0: 0.4, 1: 0.5, 2: 0.62}}, {}, {}, looks=3)
    assert verdict("s", made).endswith("over 3 paired seeds; Holm-corrected at 5 %, over 3 looks.)")


@pytest.mark.parametrize(("p", "claims"), [(0.0499, True), (0.05, False), (0.0501, False), (None, False)])
def test_only_what_is_below_the_level_is_claimed(p, claims):
    assert ("is better than" in verdict("s", [difference("a", 0.5, p)])) is claims


def test_the_corrected_p_decides():
    """An interval that leaves out 0 for one comparison alone is no claim for several."""
    one = Difference("a", dict.fromkeys(range(4), 0.01), 0.01, Interval(0.001, 0.019), 0.03, 0.18, None)
    text = verdict("s", [one])
    assert text.startswith("Not decided between s and a (+1.00, +0.10 to +1.90")
    assert "better" not in text


def test_seeds_that_all_differ_by_the_same_are_no_proof():
    made = paired_differences({0: 0.5, 1: 0.6}, {"a": {0: 0.4, 1: 0.5}}, {}, {})
    text = verdict("s", made)
    assert text.startswith("Not decided between s and a (+10.00).")
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


def three_arms(root: Path, *names: str) -> tuple[Comparison, FinishedRuns, tuple[Difference, ...]]:
    """Two seeds of the first two of three arms."""
    three = compared(*names, seeds=(0, 1))
    for seed, (ours, theirs) in enumerate([(40, 35), (41, 38)]):
        finish(root, names[0], seed, ours)
        finish(root, names[1], seed, theirs)
    runs = read_finished_runs(three, root)
    return three, runs, arm_differences(three, runs)


def test_the_table_has_the_numbers(tmp_path):
    three, runs, differences = three_arms(tmp_path, "short", "baseline", "long [slow]")
    table = [dict(zip(COMPARISON_HEADER, row, strict=True)) for row in comparison_rows(three, runs, differences)]
    assert table[0]["top-1 (%)"] == f"81.00 ± {100 * np.std([0.8, 0.82], ddof=1):.2f}"
    assert (table[0]["reference is"], table[0]["ahead by"], table[0]["seeds"]) == ("–", "–", "2")
    assert (table[1]["reference is"], table[1]["ahead by"]) == ("not decided", "+8.00")
    assert (table[1]["p sign-flip (Holm)"], table[1]["p equivalent (Holm)"]) == ("0.500", "0.911")
    assert (table[1]["samples planned"], table[1]["updates"], table[1]["time a run"]) == ("1,200", "30", "0:01:05")
    assert set(table[2].values()) == {"long [slow]", "0", "–"}
    stream = io.StringIO()
    print_comparison(three, runs, differences, stream)
    output = stream.getvalue()
    assert "long [slow]" in output
    assert "+8.00" in output
    assert "Not decided between short and baseline (+8.00" in output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(width: int, monkeypatch: pytest.MonkeyPatch, *shown: Any) -> list[str]:
    """The lines on a terminal of this width, without its colors."""
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    print_comparison(*shown, stream=stream)
    return re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue()).splitlines()


def test_80_columns_show_whole_names_and_the_answer(tmp_path, monkeypatch):
    names = ("equal_samples_rate_curve", "equal_samples", "baseline")
    shown = three_arms(tmp_path, *names)
    lines = printed(80, monkeypatch, *shown)
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if line.split() and line.split()[0] in names]
    assert [row[0] for row in rows] == list(names)
    assert " ".join(rows[1]) == "equal_samples 73.00 ± 4.24 not decided +8.00 −17.41 to +33.41"
    wide = printed(300, monkeypatch, *shown)
    assert {"updates", "time"} <= {word for line in wide for word in line.split()}
    assert not {"updates", "time"} & {word for line in lines for word in line.split()}


def test_a_narrow_terminal_stacks_the_columns_and_keeps_the_names_whole(tmp_path, monkeypatch):
    lines = printed(40, monkeypatch, *three_arms(tmp_path, "equal_samples_rate_curve", "equal_samples", "baseline"))
    verdict = next(place for place, line in enumerate(lines) if line.startswith("Not decided"))
    assert [line.strip() for line in lines[:verdict] if not line.startswith(" ")] == [
        "equal_samples_rate_curve",
        "equal_samples",
        "baseline",
    ]
    assert max(map(len, lines)) <= 40
    assert "reference is not decided; ahead by +8.00" in " ".join(" ".join(lines).split())
    assert "(Points of top-1" in " ".join(line.strip() for line in lines[verdict:])


def test_an_empty_comparison_can_be_shown(tmp_path):
    two, stream = compared("short", "baseline"), io.StringIO()
    runs = read_finished_runs(two, tmp_path)
    print_comparison(two, runs, arm_differences(two, runs), stream)
    assert "nothing to compare short with yet" in stream.getvalue()
