"""The optimizers that a configuration names, against their papers' algorithms in NumPy."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.optimizers import (
    OPTIMIZERS,
    configure,
    hyperparameters,
    inject,
    make_optimizer,
    set_hyperparameters,
)
from stepwise_jax.runtime import sharding

STEPS, RATE, DECAY = 6, 0.05, 0.01
SHAPES = {"kernel": (4, 3), "bias": (3,)}
RANDOM = np.random.default_rng(0)
START = {name: RANDOM.normal(size=shape) for name, shape in SHAPES.items()}
GRADIENTS = [{name: RANDOM.normal(size=shape) for name, shape in SHAPES.items()} for _ in range(STEPS)]


def nesterov(w, g, memory, step, decay):
    g = g + decay * w
    memory["m"] = 0.9 * memory.get("m", 0) + g
    return w - RATE * (g + 0.9 * memory["m"])


def adam_direction(g, memory, step, b2, eps):
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = b2 * memory.get("v", 0) + (1 - b2) * g**2
    return memory["m"] / (1 - 0.9**step) / (np.sqrt(memory["v"] / (1 - b2**step)) + eps)


def adamw(w, g, memory, step, decay):
    return w - RATE * (adam_direction(g, memory, step, 0.999, 1e-8) + decay * w)


def lamb(w, g, memory, step, decay):
    direction = adam_direction(g, memory, step, 0.999, 1e-6) + decay * w
    return w - RATE * np.linalg.norm(w) / np.linalg.norm(direction) * direction


def lion(w, g, memory, step, decay):
    direction = np.sign(0.9 * memory.get("m", 0) + 0.1 * g)
    memory["m"] = 0.99 * memory.get("m", 0) + 0.01 * g
    return w - RATE * (direction + decay * w)


def lars(w, g, memory, step, decay):
    g = g + decay * w
    scaled = 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
    memory["m"] = 0.9 * memory.get("m", 0) + RATE * scaled
    return w - memory["m"]


def sgd(w, g, memory, step, decay):
    memory["m"] = 0.9 * memory.get("m", 0) + g + decay * w
    return w - RATE * memory["m"]


REFERENCES = {"sgd": sgd, "nesterov": nesterov, "adamw": adamw, "lars": lars, "lamb": lamb, "lion": lion}


def expected(reference, decays=lambda name: True) -> dict[str, np.ndarray]:
    weights, memories = dict(START), {name: {} for name in START}
    for step, gradients in enumerate(GRADIENTS, start=1):
        for name, gradient in gradients.items():
            decay = DECAY if decays(name) else 0.0
            weights[name] = reference(weights[name], gradient, memories[name], step, decay)
    return weights


def trained(optimizer: optax.GradientTransformation, gradients=None) -> dict[str, Any]:
    params: Any = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), START)
    opt_state = set_hyperparameters(optimizer.init(params), learning_rate=RATE)
    for each in gradients or GRADIENTS:
        gradient = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), each)
        updates, opt_state = jax.jit(optimizer.update)(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_every_name_has_a_reference():
    assert set(REFERENCES) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_the_paper(name):
    found = trained(make_optimizer(OptimizerConfig(name=name, weight_decay=DECAY)))
    for leaf, value in expected(REFERENCES[name]).items():
        np.testing.assert_allclose(found[leaf], value, rtol=3e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "lars"])
def test_decay_on_kernels_spares_biases(name):
    found = trained(make_optimizer(OptimizerConfig(name=name, weight_decay=DECAY, decay_on="kernels")))
    for leaf, value in expected(REFERENCES[name], lambda leaf: leaf == "kernel").items():
        np.testing.assert_allclose(found[leaf], value, rtol=3e-5, atol=1e-6)


def test_lars_on_kernels_takes_plain_steps_for_biases():
    found = trained(make_optimizer(OptimizerConfig(name="lars", weight_decay=DECAY, decay_on="kernels")))
    np.testing.assert_allclose(found["kernel"], expected(lars)["kernel"], rtol=3e-5, atol=1e-6)
    plain = lambda w, g, memory, step, decay: sgd(w, g, memory, step, 0.0)  # noqa: E731
    np.testing.assert_allclose(found["bias"], expected(plain)["bias"], rtol=3e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_hyperparameter_is_injected_and_may_change_without_compiling(name, compilations):
    optimizer = make_optimizer(OptimizerConfig(name=name))
    params: Any = jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), START)
    params, opt_state = jax.device_put((params, optimizer.init(params)), sharding.replicated(sharding.make_mesh()))
    taken = hyperparameters(OPTIMIZERS[name])
    assert set(opt_state.hyperparams) == {"learning_rate", *taken}  # pyright: ignore[reportAttributeAccessIssue]
    update = jax.jit(optimizer.update)
    update(params, set_hyperparameters(opt_state, learning_rate=RATE), params)
    before = len(compilations)
    others = {key: value / 2 for key, value in taken.items()}
    update(params, set_hyperparameters(opt_state, learning_rate=0.2, **others), params)
    assert len(compilations) == before


def test_clipping_scales_gradients_to_the_norm():
    found = trained(make_optimizer(OptimizerConfig(momentum=0.0, weight_decay=0.0, clip_norm=0.5)), GRADIENTS[:1])
    norm = np.sqrt(sum((value**2).sum() for value in GRADIENTS[0].values()))
    assert norm > 0.5
    for name, gradient in GRADIENTS[0].items():
        np.testing.assert_allclose(found[name], START[name] - RATE * 0.5 / norm * gradient, rtol=1e-5)


def test_the_norm_is_a_hyperparameter_too():
    optimizer = make_optimizer(OptimizerConfig(clip_norm=0.5))
    opt_state = optimizer.init({"w": jnp.ones(3)})
    assert float(opt_state.hyperparams["clip_norm"]) == 0.5  # pyright: ignore[reportAttributeAccessIssue]


def test_an_optimizer_of_ones_own_keeps_its_defaults_and_its_integers():
    def decaying(learning_rate, power: float = 0.5, times: int = 2):
        assert isinstance(times, int)
        return optax.chain(optax.scale(power**times), optax.scale_by_learning_rate(learning_rate))

    assert hyperparameters(decaying) == {"power": 0.5}
    found = trained(inject(decaying), GRADIENTS[:1])
    np.testing.assert_allclose(found["bias"], START["bias"] - RATE * 0.25 * GRADIENTS[0]["bias"], rtol=1e-5)


def test_a_configured_function_takes_the_fields_that_differ_from_their_defaults():
    def own(learning_rate, momentum: float = 0.5, weight_decay: float = 0.25):
        return optax.sgd(learning_rate)

    assert hyperparameters(configure(OptimizerConfig(name=own))) == {"momentum": 0.5, "weight_decay": 0.25}
    changed = configure(OptimizerConfig(name=own, momentum=0.75))
    assert hyperparameters(changed) == {"momentum": 0.75, "weight_decay": 0.25}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"name": "adamw", "momentum": 0.5},
            "optimizer.momentum is 0.5: adamw does not take it; it takes b1, b2, eps, ",
        ),
        ({"name": "sgd", "b1": 0.5}, "optimizer.b1 is 0.5: sgd does not take it; it takes momentum, weight_decay"),
        ({"name": "lion", "trust_coefficient": 0.1}, "optimizer.trust_coefficient is 0.1: lion does not take it"),
        ({"name": lambda rate: optax.sgd(rate)}, "the first argument of .* must be learning_rate"),
    ],
)
def test_a_hyperparameter_that_an_optimizer_does_not_take_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        configure(OptimizerConfig(**fields))


def test_defaults_are_the_arguments_own():
    for name, optimizer in OPTIMIZERS.items():
        given = inspect.signature(optimizer).parameters
        config = OptimizerConfig(name=name)  # pyright: ignore[reportArgumentType]
        assert hyperparameters(configure(config)) == {key: given[key].default for key in hyperparameters(optimizer)}
