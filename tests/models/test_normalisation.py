"""Batch norm and its gradients, against their closed forms."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import layers
from models.normalisation import normalise
from tests.models.layer_inputs import normal, trace_as_on


def train_norm(norm, variables, x) -> Any:
    """The output, and the updated statistics."""
    output, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    return output, updated["batch_stats"]


def test_batch_norm_is_the_closed_form():
    x = 3 + 2 * normal(4, 3, 3, 5)
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), x, train=False)
    output, statistics = train_norm(norm, variables, x)
    rows = np.asarray(x, np.float64).reshape(-1, 5)
    np.testing.assert_allclose(statistics["mean"], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
    expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    np.testing.assert_allclose(np.reshape(output, (-1, 5)), expected, rtol=1e-4, atol=1e-5)
    evaluated: Any = norm.apply({**variables, "batch_stats": statistics}, x, train=False)
    expected = (rows - 0.1 * rows.mean(0)) / np.sqrt(0.9 + 0.1 * rows.var(0, ddof=1) + 1e-5)
    np.testing.assert_allclose(np.reshape(evaluated, (-1, 5)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("rectified", [False, True])
def test_gradient_of_batch_norm_is_that_of_its_definition(monkeypatch, rectified, platform):
    trace_as_on(monkeypatch, platform)

    def defined(x, scale, bias):
        deviation = jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
        normalised = (x - x.mean((0, 1, 2))) / deviation * scale + bias
        return jax.nn.relu(normalised) if rectified else normalised

    def ours(x, scale, bias):
        normalised: Any = normalise(x, scale, bias, jnp.zeros(5), 1e-5, rectified)
        return normalised[0]

    arguments = 1 + 2 * normal(4, 3, 3, 5), normal(5, seed=1), normal(5, seed=2)
    gradient = normal(4, 3, 3, 5, seed=3)
    for expected, actual in zip(
        jax.vjp(defined, *arguments)[1](gradient), jax.vjp(ours, *arguments)[1](gradient), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("far", [0.0, 30.0, 3000.0])
def test_batch_norm_is_exact_however_far_one_channel_is_from_zero(monkeypatch, far, platform):
    trace_as_on(monkeypatch, platform)
    means = far * jnp.asarray([0.0, 0.0, 1.0, 0.0, -1.0])
    x = normal(16, 8, 8, 5) + means
    # A CPU finds its own way; an accelerator is told roughly where the means are.
    near = jnp.zeros(5) if platform == "cpu" else means + 1
    scale, gradient = 1 + normal(5, seed=1) / 4, normal(16, 8, 8, 5, seed=3)

    def normalised(x, scale):
        return cast(Any, normalise(x, scale, jnp.zeros_like(scale), near, 1e-5))

    (output, mean, var), back = jax.vjp(normalised, x, scale)
    nothing = jnp.zeros_like(scale)
    of_x, of_scale = back((gradient, nothing, nothing))
    # The same in float64, from the definition.
    rows, of_rows = (np.asarray(array, np.float64).reshape(-1, 5) for array in (x, gradient))
    inverse = 1 / np.sqrt(rows.var(0) + 1e-5)
    standard = (rows - rows.mean(0)) * inverse
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(var, rows.var(0), rtol=1e-4)
    np.testing.assert_allclose(np.reshape(output, (-1, 5)), standard * scale, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(of_scale, (of_rows * standard).sum(0), rtol=1e-3, atol=2e-2)
    expected = of_rows - of_rows.mean(0) - standard * (of_rows * standard).mean(0)
    np.testing.assert_allclose(np.reshape(of_x, (-1, 5)), expected * inverse * scale, rtol=1e-3, atol=2e-3)


def test_batch_norm_keeps_float32_statistics_under_bfloat16():
    x = (1000 + normal(64, 8, 8, 3)).astype(jnp.bfloat16)
    norm = layers.BatchNorm(dtype=jnp.bfloat16)
    output, statistics = train_norm(norm, norm.init(jax.random.key(0), x, train=False), x)
    rows = np.asarray(x, np.float64).reshape(-1, 3)
    assert output.dtype == jnp.bfloat16
    assert statistics["var"].dtype == jnp.float32
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-3)


def test_a_rectified_batch_norm_is_a_relu_of_one():
    x = normal(4, 3, 3, 5)
    plain, rectified = layers.BatchNorm(), layers.BatchNorm(rectified=True)
    variables = plain.init(jax.random.key(0), x, train=False)
    np.testing.assert_array_equal(
        train_norm(rectified, variables, x)[0], jax.nn.relu(train_norm(plain, variables, x)[0])
    )
    evaluated: Any = plain.apply(variables, x, train=False)
    np.testing.assert_array_equal(rectified.apply(variables, x, train=False), jax.nn.relu(evaluated))


def test_batch_norm_of_one_value_is_refused():
    norm = layers.BatchNorm()
    x = jnp.ones((1, 1, 1, 3))
    variables = norm.init(jax.random.key(0), x, train=False)
    with pytest.raises(ValueError, match=r"one value per channel.*two images"):
        norm.apply(variables, x, train=True, mutable=["batch_stats"])
