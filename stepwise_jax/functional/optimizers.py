"""Optimizers by name, whose hyperparameters a stage can set without recompiling.

An optimizer is a function `learning_rate, **hyperparameters -> optax.GradientTransformation`. Its arguments with a
default that is a float are its hyperparameters: they become part of the optimizer's state.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.experiment.functions import load
from stepwise_jax.runtime.sharding import place

Optimizer = Callable[..., optax.GradientTransformation]
"""`learning_rate, **hyperparameters -> optax.GradientTransformation`."""


def sgd(
    learning_rate: float, momentum: float = 0.9, weight_decay: float = 1e-4, *, decay_on: str = "all"
) -> optax.GradientTransformation:
    """SGD with PyTorch's update rule, the paper's: weight decay is added to the gradient, then comes momentum."""
    decay = optax.add_decayed_weights(weight_decay, mask=_decay_mask(decay_on))
    return optax.chain(decay, optax.sgd(learning_rate, momentum=momentum))


def nesterov(
    learning_rate: float, momentum: float = 0.9, weight_decay: float = 1e-4, *, decay_on: str = "all"
) -> optax.GradientTransformation:
    """SGD with Nesterov's momentum, as in PyTorch."""
    decay = optax.add_decayed_weights(weight_decay, mask=_decay_mask(decay_on))
    return optax.chain(decay, optax.sgd(learning_rate, momentum=momentum, nesterov=True))


def adamw(
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    *,
    decay_on: str = "all",
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay: Loshchilov and Hutter (2019), Algorithm 2."""
    return optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=_decay_mask(decay_on))


def lars(
    learning_rate: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    trust_coefficient: float = 0.001,
    *,
    decay_on: str = "all",
) -> optax.GradientTransformation:
    """Layer-wise adaptive rates: You et al., "Large batch training of convolutional networks" (2017), Algorithm 1.

    Parameters without decay take part in no trust ratio either.
    """
    mask = _decay_mask(decay_on)
    return optax.lars(
        learning_rate,
        weight_decay,
        weight_decay_mask=mask,
        trust_coefficient=trust_coefficient,
        trust_ratio_mask=mask,
        momentum=momentum,
    )


def lamb(
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 1e-4,
    *,
    decay_on: str = "all",
) -> optax.GradientTransformation:
    """Layer-wise adaptive rates for Adam: You et al., "Large batch optimization" (2020), Algorithm 2."""
    return optax.lamb(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=_decay_mask(decay_on))


def lion(
    learning_rate: float, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 1e-4, *, decay_on: str = "all"
) -> optax.GradientTransformation:
    """The sign of a momentum: Chen et al., "Symbolic discovery of optimization algorithms" (2023), Algorithm 2."""
    return optax.lion(learning_rate, b1, b2, weight_decay=weight_decay, mask=_decay_mask(decay_on))


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": sgd,
    "nesterov": nesterov,
    "adamw": adamw,
    "lars": lars,
    "lamb": lamb,
    "lion": lion,
}
"""The optimizers that `optimizer.name` can name."""


def _decay_mask(decay_on: str) -> Callable[[Any], Any]:
    """Which parameters decay: all, or those with two dimensions or more, which biases and normalisation lack."""
    return lambda params: jax.tree.map(lambda leaf: decay_on == "all" or leaf.ndim > 1, params)


def hyperparameters(optimizer: Optimizer) -> dict[str, float]:
    """Return the names and defaults of what an optimizer takes beside the learning rate.

    Raises:
      InputError: if its first argument is not `learning_rate`.
    """
    arguments = inspect.signature(optimizer).parameters
    if next(iter(arguments), None) != "learning_rate":
        name = getattr(optimizer, "__name__", type(optimizer).__name__)
        raise InputError(f"optimizer.name: the first argument of {name} must be learning_rate")
    return {name: each.default for name, each in arguments.items() if isinstance(each.default, float)}


def configure(config: OptimizerConfig) -> Optimizer:
    """Return the optimizer that a configuration describes, with its hyperparameters as defaults.

    Raises:
      InputError: if the configuration sets a hyperparameter that the optimizer does not take.
    """
    optimizer = load(config.name) if callable(config.name) else OPTIMIZERS[config.name]
    taken = hyperparameters(optimizer)
    given, plain = config.hyperparameters(), OptimizerConfig()
    if callable(config.name):
        # A function has defaults of its own: only what is set differently counts.
        given = {name: value for name, value in given.items() if value != getattr(plain, name)}
    for name, value in given.items():
        if name not in taken and value != getattr(plain, name):
            known = ", ".join(taken) or "none"
            raise InputError(f"optimizer.{name} is {value!r}: {_name(optimizer)} does not take it; it takes {known}")
    values = {name: value for name, value in given.items() if name in taken}
    if "decay_on" in inspect.signature(optimizer).parameters:
        return partial(optimizer, **values, decay_on=config.decay_on)
    return partial(optimizer, **values)


def _name(optimizer: Optimizer) -> str:
    inner = optimizer.func if isinstance(optimizer, partial) else optimizer
    return getattr(inner, "__name__", type(inner).__name__)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Create the optimizer of a configuration; see `inject`."""
    return inject(configure(config), config.clip_norm)


def inject(optimizer: Optimizer, clip_norm: float | None = None) -> optax.GradientTransformation:
    """Create an optimizer whose hyperparameters, in float32, are part of its state (`opt_state.hyperparams`).

    The learning rate starts at 0; `set_hyperparameters` sets it before the first step.

    Args:
      optimizer: `learning_rate, **hyperparameters -> optax.GradientTransformation`.
      clip_norm: largest global norm of the gradients, itself a hyperparameter; None clips nothing.
    """
    values, function = hyperparameters(optimizer), optimizer
    if clip_norm is not None:
        values, function = values | {"clip_norm": clip_norm}, _clipped(optimizer)
    named = _with_arguments(function, ("learning_rate", *values))
    return optax.inject_hyperparams(named, hyperparam_dtype=jnp.dtype(jnp.float32))(learning_rate=0.0, **values)


def _clipped(optimizer: Optimizer) -> Optimizer:
    def clipped(learning_rate: Any, clip_norm: Any, **values: Any) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer(learning_rate, **values))

    return clipped


def _with_arguments(function: Optimizer, names: Sequence[str]) -> Optimizer:
    """The function of these arguments alone, so that Optax injects no others, such as integers, by their defaults."""

    def call(**arguments: Any) -> optax.GradientTransformation:
        return function(**arguments)

    arguments = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names]
    call.__signature__ = inspect.Signature(arguments)  # pyright: ignore[reportFunctionMemberAccess]
    return call


def set_hyperparameters(opt_state: Any, **values: float) -> Any:
    """Return the optimizer's state with other hyperparameters, such as `learning_rate=0.1`.

    The new arrays keep dtype, sharding and strong type: a Python float would recompile the step.
    """
    hyperparams = dict(opt_state.hyperparams)
    for name, value in values.items():
        old = hyperparams[name]
        # NumPy, because a JAX operation takes a millisecond, between two stages, while the device waits.
        hyperparams[name] = place(np.full(old.shape, value, old.dtype), old.sharding)
    return opt_state._replace(hyperparams=hyperparams)


def momentum_buffer(opt_state: Any) -> Any:
    """Return the momentum of every parameter, as a tree like the parameters; None if the optimizer has none."""
    return optax.tree_utils.tree_get(opt_state, "trace")
