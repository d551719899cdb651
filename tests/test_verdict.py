"""The wording follows the numbers, and claims no more than they show."""

from stepwise_jax.statistics import differences
from stepwise_jax.verdict import chance, points, span, verdict

SEEDS = range(5)
REFERENCE = {seed: 0.60 + 0.002 * seed for seed in SEEDS}


def told(**others: list[float]) -> str:
    scores = {
        name: {seed: REFERENCE[seed] - value for seed, value in enumerate(values)} for name, values in others.items()
    }
    return verdict("staged", differences(REFERENCE, scores, {}, {}))


def test_better_and_worse_are_told_where_they_are_shown():
    text = told(plain=[0.030, 0.031, 0.029, 0.030, 0.032], long=[-0.020, -0.021, -0.019, -0.020, -0.022])
    assert "staged is better than plain (+3.04, +2.90 to +3.18)" in text
    assert "staged is worse than long (−2.04" in text
    assert "No difference" not in text
    assert "5 paired seeds" in text


def test_no_difference_is_a_prominent_outcome():
    text = told(plain=[0.03, -0.03, 0.01, -0.01, 0.02])
    assert text.startswith("No difference shown between staged and plain (+0.40")
    assert "better" not in text
    assert "worse" not in text


def test_a_difference_that_only_one_of_many_comparisons_shows_is_not_claimed():
    # p = 0.03 alone; taken with four others it is no longer below 0.05.
    almost = [0.010, 0.002, 0.012, 0.004, 0.011]
    noise = [0.03, -0.03, 0.01, -0.01, 0.02]
    assert "better than almost" in told(almost=almost)
    assert "better" not in told(almost=almost, a=noise, b=noise[::-1], c=noise, d=noise[::-1])


def test_one_seed_shows_nothing():
    text = told(plain=[0.3])
    assert text.startswith("One seed shows no difference, whatever its numbers: plain (+30.00)")


def test_nothing_to_compare():
    assert verdict("staged", ()).startswith("There is nothing to compare staged with yet")


def test_numbers_as_people_read_them():
    assert (points(0.0123), points(-0.002), span(None), chance(None)) == ("+1.23", "−0.20", "–", "–")
    assert (chance(0.0004), chance(0.0421)) == ("< 0.001", "0.042")
