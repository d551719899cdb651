"""TOML as it is written, read by the standard library."""

import tomllib

import pytest

from stepwise_jax.studies.designs.toml import flatten, to_toml


@pytest.mark.parametrize(
    "value",
    ["plain", 'a "b" \\ c', "two\nlines", "λ ± 1", "\x7f\x01", 3, -0.5, 1e-5, 1e22, True, False, [], [0.2, 1.0]],
)
def test_values_are_read_back(value):
    assert tomllib.loads(to_toml({"a": value, "b c": value})) == {"a": value, "b c": value}


def test_tables_are_read_back():
    document = {
        "first": {"plan.batch_size": 24, "plan.a b": "x"},
        "arms": [{"name": "A-O", "changes": {"plan.strategy": "own", "plan.fractions": [0.2, 1.0]}}, {"name": "b"}],
        "last": 1,
    }
    read = tomllib.loads(to_toml(document))
    assert read["first"]["plan"] == {"batch_size": 24, "a b": "x"}
    assert flatten(read["first"]) == document["first"]
    assert [flatten(arm) for arm in read["arms"]] == [flatten(arm) for arm in document["arms"]]
    assert read["last"] == 1
