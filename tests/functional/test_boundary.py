"""What the rules of a stage boundary keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.functional.boundary import BOUNDARY_RULES, cross_stage_boundary, shrink_perturb
from stepwise_jax.functional.state import TrainState


def state(value: float, step: int) -> TrainState:
    tree = {"kernel": jnp.full((2, 3), value)}
    return TrainState(jnp.int32(step), tree, {"mean": jnp.full(3, value)}, {"trace": jnp.full(3, value)})


BEFORE, INITIAL = state(2.0, 7), state(1.0, 0)


def cross(rule):
    return cross_stage_boundary(BEFORE, lambda: INITIAL, PlanConfig(carry=rule))


def test_shrink_and_perturb_is_the_weighted_sum_of_old_and_initial_weights():
    after = cross("shrink_perturb")
    np.testing.assert_allclose(after.params["kernel"], 0.4 * 2 + 0.1 * 1)
    np.testing.assert_array_equal(after.opt_state["trace"], INITIAL.opt_state["trace"])
    np.testing.assert_array_equal(after.batch_stats["mean"], BEFORE.batch_stats["mean"])
    np.testing.assert_allclose(cross(shrink_perturb(0.5, 0.25)).params["kernel"], 1.25)


@pytest.mark.parametrize("rule", [*BOUNDARY_RULES, shrink_perturb(0.3, 0.3)])
def test_every_rule_keeps_the_count_of_updates(rule):
    assert cross(rule).step == 7


def test_a_rule_of_ones_own_sees_both_states():
    def average(before, make_initial_state):
        mean = lambda old, new: (old + new) / 2  # noqa: E731
        return before._replace(params=jax.tree.map(mean, before.params, make_initial_state().params))

    np.testing.assert_allclose(cross(average).params["kernel"], 1.5)
