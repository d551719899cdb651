from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.losses import cross_entropy
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.functional.state import TrainState, state_from_variables
from stepwise_jax.functional.train_step import Batch, make_train_step

RATE, DECAY = 0.5, 0.25
OPTIMIZER = make_optimizer(OptimizerConfig(weight_decay=DECAY))


class Linear(nn.Module):
    """A softmax classifier of the pixels, the network whose gradient is known in closed form."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(3, dtype=self.dtype)(images.reshape(len(images), -1))


class Normed(nn.Module):
    """A batch norm before the softmax classifier."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train, momentum=0.75)(images)
        return nn.Dense(3)(x.reshape(len(x), -1))


def start(network: nn.Module) -> TrainState:
    state = state_from_variables(network.init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)), train=False), OPTIMIZER)
    return state._replace(opt_state=set_hyperparameters(state.opt_state, learning_rate=RATE))


def batch(size: int) -> Batch:
    """Float images, ready for the network, and labels."""
    random = np.random.default_rng(size)
    images = random.normal(1.0, 2.0, size=(size, 2, 2, 3))
    return Batch(jnp.asarray(images, jnp.float32), jnp.asarray(random.integers(0, 3, size), jnp.int32))


def softmax_regression(kernel, bias, examples: Batch):
    """Mean loss and its gradient: (p - y) x / b, in double precision."""
    x = np.asarray(examples.images, np.float64).reshape(len(examples.labels), -1)
    logits = x @ np.asarray(kernel, np.float64) + np.asarray(bias, np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    y = np.eye(3)[np.asarray(examples.labels)]
    return -np.log((p * y).sum(axis=1)).mean(), x.T @ (p - y) / len(x), (p - y).mean(axis=0)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_a_step_follows_the_closed_form_gradient_of_the_mean_loss(size):
    state, examples = start(Linear()), batch(size)
    after, metrics = jax.jit(make_train_step(Linear(), OPTIMIZER))(state, examples)
    kernel, bias = (np.asarray(state.params["Dense_0"][name]) for name in ("kernel", "bias"))
    loss, kernel_gradient, bias_gradient = softmax_regression(kernel, bias, examples)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(
        after.params["Dense_0"]["kernel"], kernel - RATE * (kernel_gradient + DECAY * kernel), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        after.params["Dense_0"]["bias"], bias - RATE * (bias_gradient + DECAY * bias), rtol=1e-4, atol=1e-5
    )
    assert (int(state.step), int(after.step), after.step.dtype) == (0, 1, jnp.int32)


def test_a_network_without_batch_norm_keeps_its_empty_statistics():
    after, _ = jax.jit(make_train_step(Linear(), OPTIMIZER))(start(Linear()), batch(4))
    assert jax.tree.structure(after) == jax.tree.structure(start(Linear()))


def test_running_statistics_follow_the_batch():
    state, examples = start(Normed()), batch(6)
    old = {"mean": jnp.array([5.0, -5.0, 0.0]), "var": jnp.array([4.0, 9.0, 16.0])}
    after, _ = jax.jit(make_train_step(Normed(), OPTIMIZER))(state._replace(batch_stats={"BatchNorm_0": old}), examples)
    images = np.asarray(examples.images, np.float64)
    moments = {"mean": images.mean(axis=(0, 1, 2)), "var": images.var(axis=(0, 1, 2))}
    for name, value in moments.items():
        expected = 0.75 * np.asarray(old[name]) + 0.25 * value
        np.testing.assert_allclose(after.batch_stats["BatchNorm_0"][name], expected, rtol=1e-5)


def test_what_is_learned_does_not_depend_on_the_running_statistics():
    step, state = jax.jit(make_train_step(Normed(), OPTIMIZER)), start(Normed())
    other = state._replace(batch_stats=jax.tree.map(lambda leaf: leaf + 7, state.batch_stats))
    ours, theirs = step(state, batch(6)), step(other, batch(6))
    jax.tree.map(np.testing.assert_array_equal, ours[0].params, theirs[0].params)
    assert float(ours[1]["loss"]) == float(theirs[1]["loss"])
    assert not np.array_equal(ours[0].batch_stats["BatchNorm_0"]["mean"], theirs[0].batch_stats["BatchNorm_0"]["mean"])


def test_a_network_that_computes_in_bfloat16_learns_in_float32():
    network = Linear(dtype=jnp.bfloat16)
    before = start(network)
    after, metrics = jax.jit(make_train_step(network, OPTIMIZER))(before, batch(9))
    assert {leaf.dtype for leaf in jax.tree.leaves((after.params, after.opt_state)) if leaf.dtype != jnp.int32} == {
        jnp.dtype(jnp.float32)
    }
    assert metrics["loss"].dtype == jnp.float32
    reference, _ = jax.jit(make_train_step(Linear(), OPTIMIZER))(before, batch(9))
    close = jax.tree.map(lambda ours, theirs: np.allclose(ours, theirs, atol=0.05), after.params, reference.params)
    assert jax.tree.all(close)


def test_cross_entropy_of_large_and_of_half_precision_logits():
    logits = np.array([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4], [0.5, 0.25, -3.0]])
    labels = jnp.array([0, 1, 2])
    last = np.log(np.exp(logits[2]).sum()) + 3
    np.testing.assert_allclose(cross_entropy()(jnp.asarray(logits, jnp.float32), labels), [0, 1e4, last], rtol=1e-6)
    half = cross_entropy()(jnp.asarray(logits[2:], jnp.bfloat16), labels[2:])
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, [last], rtol=1e-6)  # these three logits are exact in bfloat16


@pytest.mark.parametrize(
    "wrong",
    [Batch(jnp.zeros((4, 12)), jnp.zeros(4, jnp.int32)), Batch(jnp.zeros((4, 2, 2, 3)), jnp.zeros(3, jnp.int32))],
    ids=["flat images", "a label too few"],
)
def test_batches_of_the_wrong_shape_are_refused(wrong):
    with pytest.raises(AssertionError):
        make_train_step(Linear(), OPTIMIZER)(start(Linear()), wrong)
