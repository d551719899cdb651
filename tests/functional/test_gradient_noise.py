"""The estimate of gradient noise against brute force, and against populations whose noise is known."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import noise_estimator
import numpy as np
import pytest
from conftest import TinyNet
from flax import linen as nn

from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.gradient_noise import GradientGroup, estimate_noise
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.state import digest, state_from_variables
from stepwise_jax.functional.train_step import Batch, make_gradient


def groups(gradients: Sequence[np.ndarray] | np.ndarray, of: int = 1) -> list[GradientGroup]:
    """Groups of so many microbatches each."""
    parts = np.split(np.asarray(gradients), len(gradients) // of)
    return [GradientGroup({"w": part.sum(axis=0)}, float((part**2).sum()), len(part)) for part in parts]


class Small(nn.Module):
    """Two layers without batch norm, in float64."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = nn.tanh(nn.Dense(5, dtype="float64")(images.reshape(len(images), -1)))
        return nn.Dense(3, dtype="float64")(x)


def brute_force() -> tuple[np.ndarray, list[GradientGroup]]:
    """Gradients of 40 examples in float64 by `vmap(grad)` [40, P], and the same by microbatches of one example."""
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        examples = Batch(jnp.asarray(random.normal(size=(40, 4, 4, 3))), jnp.asarray(random.integers(0, 20, 40) // 18))
        variables = Small().init(jax.random.key(1), examples.images, train=False)
        state = state_from_variables(
            jax.tree.map(lambda leaf: leaf.astype("float64"), variables), make_optimizer(OptimizerConfig())
        )

        def loss(params: Any, image: jax.Array, label: jax.Array) -> jax.Array:
            logits: Any = Small().apply({"params": params}, image[None], train=False)
            return -jax.nn.log_softmax(logits)[0, label]

        apart = jax.vmap(jax.grad(loss), (None, 0, 0))(state.params, *examples)
        gradient, found = jax.jit(make_gradient(Small(), statistics="frozen")), []
        for index in range(40):
            total = gradient(state, Batch(*(leaf[index : index + 1] for leaf in examples)))[2]
            square = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(total))
            found.append(GradientGroup(jax.device_get(total), square, 1))
    return np.concatenate([np.asarray(leaf).reshape(40, -1) for leaf in jax.tree.leaves(apart)], axis=1), found


def test_single_examples_give_the_unbiased_sample_formula():
    gradients, alone = brute_force()
    noise = estimate_noise(alone, 1)
    trace = np.trace(np.cov(gradients, rowvar=False))
    squared_norm = (gradients.mean(axis=0) ** 2).sum() - trace / 40
    assert noise.trace.value == pytest.approx(trace, rel=1e-12)
    assert noise.squared_norm.value == pytest.approx(squared_norm, rel=1e-10)
    assert noise.b_simple.value == pytest.approx(trace / squared_norm, rel=1e-10)


def test_independent_draws_have_the_populations_noise_on_average():
    """All possible draws of three microbatches of two examples, with replacement, from four."""
    population = np.random.default_rng(0).normal(1.0, 2.0, size=(4, 3))
    pairs = [(population[list(pair)]).mean(axis=0) for pair in itertools.product(range(4), repeat=2)]
    found = [estimate_noise(groups(draw), 2) for draw in itertools.product(pairs, repeat=3)]
    mean = population.mean(axis=0)
    assert np.mean([each.trace.value for each in found]) == pytest.approx(((population - mean) ** 2).sum() / 4)
    assert np.mean([each.squared_norm.value for each in found]) == pytest.approx((mean**2).sum())


@pytest.mark.parametrize("of", [1, 4])
def test_the_jackknife_is_that_of_estimates_made_anew(of):
    gradients = np.random.default_rng(1).normal(0.5, 1.0, size=(24, 6))
    noise = estimate_noise(groups(gradients, of), 8)
    anew = [
        estimate_noise(groups(np.delete(gradients, np.s_[first : first + of], axis=0), of), 8)
        for first in range(0, 24, of)
    ]
    count = len(anew)
    for name in ("trace", "squared_norm"):
        values = np.array([getattr(each, name).value for each in anew])
        error = np.sqrt((count - 1) / count * ((values - values.mean()) ** 2).sum())
        whole = getattr(noise, name)
        # Quantiles of Student's t from a table, for 23 and 5 degrees of freedom.
        reach = {24: 2.0687, 6: 2.5706}[count] * error
        assert (whole.low, whole.high) == pytest.approx((whole.value - reach, whole.value + reach), rel=1e-3)


def test_grouping_changes_the_interval_alone():
    gradients = np.random.default_rng(1).normal(0.5, 1.0, size=(24, 6))
    alone, grouped = (estimate_noise(groups(gradients, of), 8) for of in (1, 4))
    assert alone.trace.value == pytest.approx(grouped.trace.value)
    assert alone.b_simple.value == pytest.approx(grouped.b_simple.value)
    assert alone.trace.low != grouped.trace.low


def test_a_negative_squared_norm_is_shown_and_not_identified():
    noise = estimate_noise(groups([np.array([1.0]), np.array([-1.0]), np.array([0.1]), np.array([-0.1])]), 1)
    assert noise.squared_norm.value < 0
    assert np.isnan([noise.b_simple.value, noise.b_simple.high]).all()


def test_an_interval_that_reaches_zero_leaves_b_simple_without_a_bound():
    noise = estimate_noise(groups([np.array([each]) for each in (2.0, -1.0, 1.5, -0.5, 1.0)]), 1)
    assert noise.squared_norm.low < 0 < noise.squared_norm.value
    assert np.isnan(noise.b_simple.high)
    assert 0 < noise.b_simple.low < noise.b_simple.value


def test_equal_gradients_have_no_noise():
    noise = estimate_noise(groups([np.array([1.0, 2.0])] * 4), 4)
    assert (noise.trace.value, noise.squared_norm.value) == pytest.approx((0.0, 5.0), abs=1e-12)


@pytest.mark.parametrize("microbatches", [16, 64])
def test_neither_estimate_is_biased_and_the_intervals_hold_the_truth(microbatches):
    """Normal gradients, as of a quadratic whose minimum is random, with a known covariance."""
    found = noise_estimator.simulate(64.0, microbatches, repetitions=300)
    for name in ("trace", "squared_norm"):
        assert abs(found[name].bias) < 4 * found[name].spread / np.sqrt(300)
        assert 0.9 < found[name].covered <= 1
    assert 0.9 < found["covered"] <= 1


def test_more_microbatches_spread_less():
    few, many = (noise_estimator.simulate(320.0, count, repetitions=100) for count in (16, 256))
    assert many["trace"].spread < 0.5 * few["trace"].spread
    assert many["squared_norm"].spread < 0.3 * few["squared_norm"].spread


def test_frozen_gradients_are_means_over_examples_and_those_of_a_batch_are_not():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 8, 3)), jnp.float32)
    batch = Batch(images, jnp.arange(6))
    state = state_from_variables(
        TinyNet().init(jax.random.key(0), images, train=False), make_optimizer(OptimizerConfig())
    )
    before = digest(state)
    apart = {}
    for statistics in ("frozen", "batch"):
        gradient = make_gradient(TinyNet(), statistics=statistics)
        parts = [gradient(state, jax.tree.map(lambda leaf, at=at: leaf[at : at + 2], batch))[2] for at in (0, 2, 4)]
        mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *parts)
        far = jax.tree.map(lambda one, other: jnp.abs(one - other).max(), gradient(state, batch)[2], mean)
        apart[statistics] = float(max(jax.tree.leaves(far)))
    assert apart["frozen"] < 1e-6 < 1e-3 < apart["batch"]
    assert digest(state) == before
