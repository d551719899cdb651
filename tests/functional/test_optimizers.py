from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.optimizers import make_optimizer, momentum_buffer, set_hyperparameters
from stepwise_jax.runtime import sharding

# Rate, momentum and weight decay of eight steps, as stages and milestones change them.
SCHEDULE = [(0.1, 0.9, 1e-2)] * 3 + [(0.01, 0.9, 1e-2)] * 2 + [(0.2, 0.5, 0.3), (0.2, 0.0, 0.3), (1e-3, 0.99, 0.0)]


def parameters() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"kernel": (4, 3), "bias": (3,), "scale": (3,)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def torch_sgd(params, gradients, schedule, decays):
    """`torch.optim.SGD`, line by line from its documentation, in double precision."""
    params = {name: value.astype(np.float64) for name, value in params.items()}
    buffers = {name: np.zeros_like(value) for name, value in params.items()}
    for gradient, (rate, momentum, decay) in zip(gradients, schedule, strict=True):
        for name in params:
            g = gradient[name] + (decay * params[name] if decays(name) else 0)
            buffers[name] = momentum * buffers[name] + g
            params[name] = params[name] - rate * buffers[name]
    return params, buffers


@pytest.mark.parametrize("decay_on", ["all", "kernels"])
def test_steps_under_changing_hyperparameters_are_those_of_pytorchs_sgd(decay_on):
    random = np.random.default_rng(1)
    start = parameters()
    gradients = [{name: random.normal(size=value.shape) for name, value in start.items()} for _ in SCHEDULE]
    optimizer = make_optimizer(OptimizerConfig(decay_on=decay_on))
    params, opt_state = jax.tree.map(jnp.asarray, start), optimizer.init(start)
    for gradient, (rate, momentum, decay) in zip(gradients, SCHEDULE, strict=True):
        opt_state = set_hyperparameters(opt_state, learning_rate=rate, momentum=momentum, weight_decay=decay)
        ours = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), gradient)
        updates, opt_state = optimizer.update(ours, opt_state, params)
        params: Any = optax.apply_updates(params, updates)
    decays = {"all": lambda _: True, "kernels": lambda name: name == "kernel"}[decay_on]
    expected, buffers = torch_sgd(start, gradients, SCHEDULE, decays)
    for name in start:
        np.testing.assert_allclose(params[name], expected[name], rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(momentum_buffer(opt_state)[name], buffers[name], rtol=2e-5, atol=1e-6)


def test_decay_on_kernels_leaves_biases_and_norms_as_they_are():
    start = parameters()
    optimizer = make_optimizer(OptimizerConfig(momentum=0.0, weight_decay=0.5, decay_on="kernels"))
    opt_state = set_hyperparameters(optimizer.init(start), learning_rate=0.1)
    updates, _ = optimizer.update(jax.tree.map(np.zeros_like, start), opt_state, start)
    params: Any = optax.apply_updates(start, updates)
    np.testing.assert_array_equal(params["bias"], start["bias"])
    np.testing.assert_array_equal(params["scale"], start["scale"])
    np.testing.assert_allclose(params["kernel"], start["kernel"] * (1 - 0.1 * 0.5), rtol=1e-6)


def test_momentum_and_weight_decay_are_the_configurations_until_they_are_set():
    optimizer = make_optimizer(OptimizerConfig(momentum=0.75, weight_decay=0.125))
    hyperparams = optimizer.init(parameters()).hyperparams  # pyright: ignore[reportAttributeAccessIssue]
    assert {name: float(value) for name, value in hyperparams.items()} == {
        "learning_rate": 0.0,
        "momentum": 0.75,
        "weight_decay": 0.125,
    }


def test_set_hyperparameters_keeps_dtype_sharding_and_strong_type():
    replicated = sharding.replicated(sharding.make_mesh())
    opt_state = jax.device_put(make_optimizer(OptimizerConfig()).init(parameters()), replicated)
    changed = set_hyperparameters(opt_state, learning_rate=0.25, weight_decay=0)
    for name, expected in {"learning_rate": 0.25, "momentum": 0.9, "weight_decay": 0.0}.items():
        value = changed.hyperparams[name]
        assert float(value) == pytest.approx(expected)
        assert (value.dtype, value.shape, value.aval.weak_type) == (jnp.float32, (), False)
        assert value.sharding == replicated
        assert value.committed
    assert float(opt_state.hyperparams["learning_rate"]) == 0.0, "the state that was given has changed"


def compilations_after_the_first(compilations: list[str], inject) -> int:
    """How many programs are compiled when `inject(opt_state, rate)` sets four more rates of a compiled step."""
    start = parameters()
    optimizer = make_optimizer(OptimizerConfig())

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = optimizer.update(params, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = jax.device_put((start, optimizer.init(start)), sharding.replicated(sharding.make_mesh()))
    params, opt_state = step(params, set_hyperparameters(opt_state, learning_rate=0.5))
    before = len(compilations)
    for rate in (0.1, 0.01, 0.001, 0):
        params, opt_state = step(params, inject(opt_state, rate))
    return len(compilations) - before


def test_a_new_rate_compiles_nothing(compilations):
    def inject(opt_state, rate):
        return set_hyperparameters(opt_state, learning_rate=rate, momentum=rate, weight_decay=rate)

    assert compilations_after_the_first(compilations, inject) == 0


def test_a_rate_injected_as_a_python_float_would_be_seen_to_compile(compilations):
    """That the count above can fail: what `set_hyperparameters` avoids costs a compilation."""

    def inject(opt_state, rate):
        return opt_state._replace(hyperparams={**opt_state.hyperparams, "learning_rate": float(rate)})

    assert compilations_after_the_first(compilations, inject) > 0
