"""Paced data against the six forms of Wu et al., written out and inverted by bisection."""

import math
from collections.abc import Callable

import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.plans.planning import make_plan
from stepwise_jax.plans.stage import Stage, learning_rate_at

M = 50_000
TOTAL = 60 * M

# Progress from the first size to the whole set, at share u of the time of the growth.
FORMS: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "quadratic": lambda u: u * u,
    "root": math.sqrt,
    "step": lambda u: float(math.floor(u)),
    "exponential": lambda u: (math.exp(10 * u) - 1) / (math.exp(10) - 1),
    "logarithmic": lambda u: 1 + math.log(u + math.exp(-10)) / 10,
}


def plan(strategy: str, examples: int = M, **fields) -> tuple[Stage, ...]:
    return make_plan(PlanConfig(strategy=strategy, **fields), examples)


def reached(form: str, progress: float) -> float:
    """The share u at which the form has this progress."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if FORMS[form](middle) < progress - 1e-12 else (low, middle)
    return high


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("after", "start", "levels"), [(0.8, 0.2, 8), (0.3, 0.05, 19), (1.0, 0.5, 1)])
def test_each_size_ends_where_the_form_reaches_the_next(form, after, start, levels):
    stages, done = plan(f"pacing:{form}:{after}:{start}:{levels}"), 0
    for stage in stages[:-1]:
        level = round((stage.fraction - start) / (1 - start) * levels)
        assert stage.fraction == pytest.approx(start + (1 - start) * level / levels)
        assert stage.examples == round(stage.fraction * M)
        ideal = after * reached(form, (level + 1) / levels) * TOTAL
        done += stage.samples
        # Each subset ends with an epoch, and the last epoch is the whole set's.
        assert abs(done - min(ideal, TOTAL - M)) <= stage.examples / 2 + 1
    assert stages[-1].examples == M
    assert abs(done + stages[-1].samples - TOTAL) <= M / 2


@pytest.mark.parametrize("form", FORMS)
def test_sizes_grow_at_a_constant_batch_and_the_rates_of_equal_samples(form):
    stages, (whole,), done = plan(f"pacing:{form}"), plan("equal_samples"), 0
    assert [stage.examples for stage in stages] == sorted({stage.examples for stage in stages})
    assert {stage.batch_size for stage in stages} == {24}
    total = sum(stage.samples for stage in stages)
    for stage in stages:
        for epoch in range(1, stage.epochs + 1):
            first, last = (60 * (done + side * stage.examples) / total for side in (0, 1))
            between = {learning_rate_at(whole, e) for e in range(math.floor(first) + 1, math.ceil(last - 1e-9) + 1)}
            rate = learning_rate_at(stage, epoch)
            assert min(between) * (1 - 1e-9) <= rate <= max(between) * (1 + 1e-9)
            done += stage.examples


def test_a_step_has_two_sizes():
    assert [(stage.name, stage.epochs) for stage in plan("pacing:step")] == [("A", 240), ("O", 12)]
    assert [stage.epochs for stage in plan("pacing:step:full_after=0.5")] == [150, 30]


def test_the_first_form_is_linear():
    assert plan("pacing") == plan("pacing:linear") == plan("pacing:form=linear:start=0.2:full_after=0.8:levels=8")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("pacing:linaer", "form of pacing is 'linaer': it must be one of 'linear', 'quadratic', 'root', 'step'"),
        ("pacing:linaer", "did you mean linear?"),
        ("pacing:full_after=0", "full_after of pacing is 0.0: it must be above 0 and at most 1"),
        ("pacing:start=1", "start of pacing is 1.0: it must be between 0 and 1"),
        ("pacing:levels=0", "levels of pacing is 0: it must be from 1 to 1000"),
        ("pacing:strat=0.1", "a parameter of pacing is 'strat': it must be one of form, full_after, start, levels"),
        ("pacing:start=0.0001", "start of pacing is 0.0001: it must be enough of 50000 examples for a batch of 24"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(strategy, message):
    with pytest.raises(InputError) as caught:
        plan(strategy)
    assert message in str(caught.value)
