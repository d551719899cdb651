"""Losses against PyTorch's definitions, written out in NumPy, for hard and soft targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stepwise_jax.functional import losses

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(6, 4)) * 3
LABELS = RANDOM.integers(0, 4, 6)
SOFT = RANDOM.dirichlet(np.ones(4), 6)


def probabilities(targets: np.ndarray, smoothing: float) -> np.ndarray:
    spread = np.eye(4)[targets] if targets.ndim == 1 else targets
    return spread * (1 - smoothing) + smoothing / 4


def softmax_loss(targets, smoothing):
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    return -(probabilities(targets, smoothing) * log_p).sum(axis=1)


def sigmoid_loss(targets, smoothing):
    p, t = 1 / (1 + np.exp(-LOGITS)), probabilities(targets, smoothing)
    return -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(axis=1)


def focal_loss(targets, smoothing):
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    return -(probabilities(targets, smoothing) * (1 - p) ** 2 * np.log(p)).sum(axis=1)


CASES = {
    "cross_entropy": (losses.cross_entropy, softmax_loss),
    "binary_cross_entropy": (losses.binary_cross_entropy, sigmoid_loss),
    "focal": (losses.focal, focal_loss),
}


@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", CASES)
def test_each_loss_is_its_definition(name, smoothing, targets):
    factory, reference = CASES[name]
    found = jax.jit(factory(label_smoothing=smoothing))(jnp.asarray(LOGITS, jnp.float32), jnp.asarray(targets))
    np.testing.assert_allclose(found, reference(targets, smoothing), rtol=2e-5)


def test_every_loss_that_a_configuration_names_is_tested():
    assert set(CASES) == set(losses.LOSSES)


def test_focal_with_gamma_0_is_the_cross_entropy():
    logits, labels = jnp.asarray(LOGITS, jnp.float32), jnp.asarray(LABELS)
    np.testing.assert_allclose(
        losses.focal(gamma=0.0)(logits, labels), losses.cross_entropy()(logits, labels), rtol=1e-6
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_has_a_slope_where_the_network_is_certain(gamma):
    slope = jax.grad(lambda logits: losses.focal(gamma=gamma)(logits, jnp.array([0])).sum())(jnp.array([[200.0, 0.0]]))
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_computed_in_float32(name):
    half = CASES[name][0]()(jnp.asarray(LOGITS, jnp.bfloat16), jnp.asarray(LABELS))
    assert half.dtype == jnp.float32
