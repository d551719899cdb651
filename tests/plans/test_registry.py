"""The table of strategies: names with parameters, and everything that is derived from it."""

from typing import Literal

import pytest

import launch
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.parameters import describe_parameters, parse_parameters
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.registry import STRATEGIES, find_strategy, is_registered, shown_strategies
from stepwise_jax.studies.variants import VARIANTS
from tests.cli.command_line import fails


def example(
    plan, examples, *, size: int, form: Literal["linear", "root"] = "linear", shares: tuple[float, ...] = (0.5, 0.75)
):
    """A strategy with a parameter of each kind."""


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["3"], {"size": 3}),
        (["3", "root"], {"size": 3, "form": "root"}),
        (["shares=0.1+0.2", "size=4"], {"size": 4, "shares": (0.1, 0.2)}),
        (["4", "shares=1"], {"size": 4, "shares": (1.0,)}),
    ],
)
def test_values_follow_a_name_in_order_or_by_name(words, values):
    assert parse_parameters("example", example, words) == values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "example needs size, as example:size:form=linear:shares=0.5+0.75"),
        (["three"], "size of example is 'three': it must be a whole number"),
        (["3", "rot"], "form of example is 'rot': it must be one of 'linear', 'root'; did you mean root?"),
        (["3", "root", "half"], "shares of example is 'half': it must be numbers with + between them"),
        (["3", "size=4"], "size of example is '4': it must be given once"),
        (["sise=4"], "a parameter of example is 'sise': it must be one of size, form, shares; did you mean size?"),
        (["3", "root", "1", "2"], "a value after example is '2': it must be left out: it takes 3 parameters"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_one_sentence(words, message):
    with pytest.raises(InputError) as caught:
        parse_parameters("example", example, words)
    assert message in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"plan\.strategy is 'stepwize': .*; did you mean stepwise\?"):
        make_plan(PlanConfig(strategy="stepwize"), 1000)
    assert (is_registered("stepwize"), is_registered("cosine"), is_registered("cosine:x")) == (False, True, True)


def test_a_misspelt_strategy_is_refused_before_the_data_is_opened(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    words = ("plan", "configs/digits.py", "--data.name", "image_folder", "--plan.strategy", "cosinee")
    assert "did you mean cosine?" in fails(capsys, *words)


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_entry_is_named_after_its_function_and_has_a_title_and_a_docstring(name):
    entry = STRATEGIES[name]
    assert entry.function.__name__ == name
    assert entry.title
    assert entry.function.__doc__
    assert VARIANTS[name].title == entry.title
    assert VARIANTS[name].changes["plan.strategy"] == name


def test_the_strategies_that_are_shown_can_be_found():
    assert {name.partition(":")[0] for name in shown_strategies()} == set(STRATEGIES)
    assert all(find_strategy(name) for name in shown_strategies())


@pytest.mark.parametrize("command", ["plan", "train", "compare"])
def test_help_lists_every_strategy_with_its_title(capsys, command):
    assert launch.main([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, entry in STRATEGIES.items():
        place = lines.index(f"  {name}{describe_parameters(entry.function)}")
        assert lines[place + 1].strip() == entry.title
