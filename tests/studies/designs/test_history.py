"""What was decided before looking, and what was added later."""

import dataclasses

from stepwise_jax.studies.comparison import Protocol
from stepwise_jax.studies.designs import history
from tests.studies.example_comparison import compared

TWO, MORE = compared("stepwise", "baseline"), compared("stepwise", "baseline", "cosine", seeds=(0, 1, 2))


def test_before_the_first_look_everything_may_be_decided():
    before = history.update_history(history.new_history(TWO), MORE, designed=False)
    assert not history.find_additions(before, MORE)


def test_what_comes_after_a_look_is_an_addition():
    looked = history.add_look(history.new_history(TWO), {"stepwise": 2, "baseline": 1})
    after = history.update_history(looked, MORE, designed=False)
    added = history.find_additions(after, MORE)
    assert (added.arms, added.seeds, added.margin) == (("cosine",), (2,), False)
    assert history.describe_additions(added) == "Added after looking: strategies cosine; seeds 2."
    assert history.describe_looks(after.looks) == "Looks at the results so far: 1 (finished seeds: 1 to 2)."


def test_what_a_design_lacks_is_an_addition_even_before_a_look():
    designed = history.update_history(history.new_history(TWO), MORE, designed=True)
    assert history.find_additions(designed, MORE).seeds == (2,)


def test_a_margin_chosen_after_looking_is_an_addition():
    looked = history.add_look(history.new_history(TWO), {"stepwise": 2, "baseline": 2})
    later = dataclasses.replace(TWO, protocol=Protocol(margin=2.0))
    assert history.describe_additions(history.find_additions(looked, later)).startswith(
        "Added after looking: the margin."
    )


def test_the_same_results_again_are_no_further_look():
    new = history.new_history(TWO)
    once = history.add_look(new, {"stepwise": 1, "baseline": 1})
    assert history.add_look(once, {"stepwise": 1, "baseline": 1}) == once
    assert history.add_look(new, {"stepwise": 0, "baseline": 0}) == new
    twice = history.add_look(once, {"stepwise": 2, "baseline": 2})
    assert history.history_from_dict(history.history_to_dict(twice)) == twice
    assert history.describe_looks(twice.looks) == "Looks at the results so far: 2 (finished seeds: 1, 2)."
    assert history.describe_looks(()) == "Nobody has looked at results yet."
