"""Pooling and its gradients, against XLA's own and PyTorch's definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models import pooling
from tests.models.layer_inputs import normal


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 9, 3), (1, 1, 2, 3)])
@pytest.mark.parametrize("draw", ["normal", "ties"])
def test_max_pool_and_its_gradient_are_xlas(shape, draw):
    x = normal(*shape) if draw == "normal" else jnp.round(normal(*shape))

    def library(x):
        return lax.reduce_window(x, -np.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))

    expected, pull_back = jax.vjp(library, x)
    actual, pull_back_ours = jax.vjp(pooling.max_pool, x)
    np.testing.assert_array_equal(actual, expected)
    gradient = normal(*expected.shape, seed=1)
    np.testing.assert_allclose(pull_back_ours(gradient)[0], pull_back(gradient)[0], rtol=1e-6, atol=1e-6)


def test_average_pools_are_pytorchs():
    x = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(pooling.shrink_average(x, 2)[0, ..., 0], [[3, 4.5], [7.5, 9]])
    np.testing.assert_allclose(pooling.avg_pool(x, 2)[0, ..., 0] * 9, [[12, 16], [24, 28]])
    assert pooling.shrink_average(x, 1) is x


@pytest.mark.parametrize(("side", "stride"), [(6, 1), (6, 2), (7, 2), (1, 1), (2, 2)])
def test_average_pool_and_its_gradient_are_xlas(side, stride):
    def windows(x):
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, np.float32(0), lax.add, (1, 3, 3, 1), (1, stride, stride, 1), padding) / 9

    x = normal(2, side, side, 3)
    expected, back = jax.vjp(windows, x)
    actual, ours_back = jax.vjp(lambda x: pooling.avg_pool(x, stride), x)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    gradient = normal(*expected.shape, seed=1)
    np.testing.assert_allclose(ours_back(gradient)[0], back(gradient)[0], rtol=1e-6, atol=1e-6)
