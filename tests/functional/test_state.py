import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TinyNet

from stepwise_jax.experiment.config import OptimizerConfig, PlanConfig
from stepwise_jax.functional.boundary import cross_stage_boundary, initial_batch_stats
from stepwise_jax.functional.optimizers import make_optimizer, momentum_buffer, set_hyperparameters
from stepwise_jax.functional.state import (
    TrainState,
    digest,
    learned_state,
    make_initializer,
    state_from_variables,
)

OPTIMIZER = make_optimizer(OptimizerConfig())
# Without optimisation the random generators compile in a moment.
CREATE = jax.jit(make_initializer(TinyNet(), OPTIMIZER, 8), compiler_options={"xla_backend_optimization_level": 0})


def make_initial_state() -> TrainState:
    return CREATE(jax.random.key(0))


def trained() -> TrainState:
    """A state in which no leaf is what a fresh one holds."""
    random = np.random.default_rng(0)

    def value(leaf: jax.Array) -> jax.Array:
        if leaf.dtype == jnp.int32:
            return jnp.full_like(leaf, 17)
        return jnp.asarray(random.uniform(2, 3, leaf.shape), leaf.dtype)

    return jax.tree.map(value, make_initial_state())


def same(ours, theirs) -> bool:
    """Whether two trees are equal to the bit, in dtype and in shape, by numpy alone."""
    left, right = jax.tree.leaves_with_path(ours), jax.tree.leaves_with_path(theirs)
    return len(left) == len(right) and all(
        path == other and a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
        for (path, a), (other, b) in zip(left, right, strict=True)
    )


# ---- The first state


def test_the_first_state_is_a_function_of_the_key():
    assert same(make_initial_state(), make_initial_state())
    assert not same(make_initial_state().params, CREATE(jax.random.key(1)).params)


def test_the_first_state_has_no_past():
    state = make_initial_state()
    assert (int(state.step), state.step.dtype) == (0, jnp.int32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((state.params, state.batch_stats)))
    assert all(not leaf.any() for leaf in jax.tree.leaves(momentum_buffer(state.opt_state)))
    assert same(state.batch_stats, initial_batch_stats(trained().batch_stats))


def test_a_state_from_given_weights_holds_them_and_no_past():
    given = trained()
    state = state_from_variables({"params": given.params, "batch_stats": given.batch_stats}, OPTIMIZER)
    assert same((state.params, state.batch_stats), (given.params, given.batch_stats))
    assert same((state.step, state.opt_state), (make_initial_state().step, make_initial_state().opt_state))


# ---- Across a boundary


@pytest.mark.parametrize("statistics", ["carried", "reset", "reestimated"])
@pytest.mark.parametrize("carry", ["state", "weights"])
def test_what_crosses_a_boundary_is_kept_to_the_bit_and_the_rest_is_fresh(carry, statistics):
    before, fresh = trained(), make_initial_state()
    after = cross_stage_boundary(before, make_initial_state, PlanConfig(carry=carry, batch_statistics=statistics))
    assert same((after.step, after.params), (before.step, before.params))
    assert same(after.opt_state, before.opt_state if carry == "state" else fresh.opt_state)
    assert same(after.batch_stats, before.batch_stats if statistics == "carried" else fresh.batch_stats)


def test_with_nothing_carried_only_the_count_of_steps_is_kept():
    before, fresh = trained(), make_initial_state()
    after = cross_stage_boundary(before, make_initial_state, PlanConfig(carry="nothing"))
    assert same(after, fresh._replace(step=before.step))


def test_reset_statistics_are_means_of_0_and_variances_of_1_wherever_they_stand():
    five = np.full((2,), 5, np.float32)
    stale = {"var": {"mean": five, "var": five}, "block": {"norm": {"var": five, "mean": five}}}
    reset = initial_batch_stats(stale)
    assert jax.tree.map(lambda leaf: leaf.tolist(), reset) == {
        "var": {"mean": [0, 0], "var": [1, 1]},
        "block": {"norm": {"var": [1, 1], "mean": [0, 0]}},
    }


# ---- The digest


TREE = {
    "b": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(3, np.float32)},
    "a": (np.int32(4), np.ones((), np.float32)),
}


def test_equal_trees_have_one_digest():
    reordered = {"a": TREE["a"], "b": dict(reversed(TREE["b"].items()))}
    assert digest(TREE) == digest(reordered) == digest(jax.tree.map(jnp.asarray, TREE))
    assert len(digest(TREE)) == 64


def changed_trees():
    """Trees that differ from TREE in one thing each."""
    leaves, structure = jax.tree.flatten(TREE)
    for index, leaf in enumerate(leaves):
        content = bytearray(leaf.tobytes())
        content[0] ^= 1  # the last bit of the first number
        flipped = np.frombuffer(bytes(content), leaf.dtype).reshape(leaf.shape)
        yield jax.tree.unflatten(structure, [*leaves[:index], flipped, *leaves[index + 1 :]])
    kernel, bias = TREE["b"]["kernel"], TREE["b"]["bias"]
    yield {**TREE, "b": {"kernel": kernel, "bias": -bias}}  # zeros with a sign
    yield {**TREE, "b": {"kernel": kernel.reshape(3, 2), "bias": bias}}
    yield {**TREE, "b": {"kernel": kernel.view(np.int32), "bias": bias}}
    yield {**TREE, "b": {"weight": kernel, "bias": bias}}
    yield {**TREE, "b": {"kernel": kernel}}
    yield {**TREE, "b": {"kernel": kernel, "bias": bias, "more": np.zeros(0, np.float32)}}
    yield {**TREE, "a": TREE["a"][::-1]}


def test_every_difference_between_trees_changes_the_digest():
    digests = [digest(tree) for tree in (TREE, *changed_trees())]
    assert len(set(digests)) == len(digests) == 12


def test_what_runs_are_compared_by_is_what_was_learned():
    state = trained()
    assert set(learned_state(state)) == {"params", "batch_stats", "momentum"}
    rate_changed = state._replace(opt_state=set_hyperparameters(state.opt_state, learning_rate=9.0))
    assert digest(learned_state(rate_changed)) == digest(learned_state(state))
    for part in ("params", "batch_stats", "opt_state"):
        other = state._replace(**{part: getattr(make_initial_state(), part)})
        assert digest(learned_state(other)) != digest(learned_state(state)), f"{part} is left out"
