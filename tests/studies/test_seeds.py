"""Which streams of random numbers differ between the seeds of a comparison."""

import re

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import ExperimentConfig
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.studies import seeds

DRAWN = override_fields(ExperimentConfig(seed=7), {"data.subset_draw": "seeded", "data.train_examples": 100})


def test_without_a_choice_the_seed_itself_differs():
    assert seeds.seed_arguments((), 3) == ("--seed", "3")
    assert seeds.with_seed(DRAWN, (), 3).seed == 3


def test_only_the_named_streams_differ():
    assert seeds.seed_arguments(("init", "sample"), 3) == ("--streams.init", "3", "--data.sample_seed", "3")
    varied = seeds.with_seed(DRAWN, ("init", "subset"), 3)
    assert [varied.stream_seed(stream) for stream in ("init", "order", "subset")] == [3, 7, 3]
    assert (varied.seed, varied.data.sample_seed) == (7, None)
    assert seeds.describe_vary(("init", "sample"), 7) == (
        "What differs between the seeds: initial weights, choice of training images; held at seed 7: order of the "
        "examples, subsets."
    )
    assert seeds.describe_vary((), 7) == ""


@pytest.mark.parametrize(
    ("vary", "fields", "message"),
    [
        (("inti",), {}, "--vary inti: 'inti' is no stream: they are init, order, subset, sample; did you mean init?"),
        (("init", "init"), {}, "each stream can be named once"),
        (("init",), {"streams.init": 3}, "streams.init is set, and would have no effect"),
        (("subset",), {"data.subset_draw": "tfds"}, "data.subset_draw 'tfds' draws the same for every seed"),
        (("sample",), {"data.train_examples": None}, "every run takes the whole training set"),
    ],
)
def test_streams_that_cannot_differ_are_refused(vary, fields, message):
    with pytest.raises(InputError, match=re.escape(message)):
        seeds.check_vary(vary, override_fields(DRAWN, fields))


def test_all_streams_can_differ():
    seeds.check_vary(tuple(seeds.STREAM_FIELDS), DRAWN)
