"""The training state, as one flat pytree, and the parts of it that cross a stage boundary."""

import collections
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from stepwise_jax.functional.optimizers import momentum_buffer


class TrainState(NamedTuple):
    """The state that a training step takes and returns."""

    step: jax.Array
    """int32 scalar: optimiser steps since the start of the run."""
    params: Any
    """float32 weights of the network, a tree of dictionaries."""
    batch_stats: Any
    """Whatever else the network keeps, such as the running statistics of batch norm; empty if it keeps nothing."""
    opt_state: Any
    """The optimizer's memory, with its hyperparameters in `opt_state.hyperparams`."""
    key: jax.Array | None = None
    """uint32 key data of the run's seed, if anything in a step is random: augmentation, dropout."""
    ema: Any = None
    """Moving averages of `params` and `batch_stats`, if the recipe has an `ema_decay`."""


def present_fields(state: TrainState) -> Any:
    """Return the fields that a state has, as a tuple with their names: what a checkpoint holds."""
    fields = {name: value for name, value in state._asdict().items() if value is not None}
    return collections.namedtuple("TrainState", fields)(**fields)


def trained_variables(state: TrainState) -> dict[str, Any]:
    """Return the network's variables as they were trained."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def averaged_variables(state: TrainState) -> dict[str, Any]:
    """Return the moving average of the network's variables."""
    return dict(state.ema)


class StateOptions(NamedTuple):
    """What a state has beside weights, batch statistics and the optimizer's memory."""

    random: bool = False
    """A key, because a step draws random numbers."""
    averaged: bool = False
    """Moving averages of the weights, which start at the first weights."""


def make_initializer(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    image_size: int,
    options: StateOptions = StateOptions(),  # noqa: B008 (immutable)
) -> Callable[[jax.Array], TrainState]:
    """Return a pure function from a random key to the state before the first step, for the caller to jit-compile.

    Args:
      network: called as `network.apply(variables, images, train=...)`.
      optimizer: creates the first `opt_state`.
      image_size: height and width of the images, in pixels.
      options: what else the state has.
    """

    def create_state(key: jax.Array) -> TrainState:
        images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
        return state_from_variables(network.init(key, images, train=False), optimizer, key, options)

    return create_state


def state_from_variables(
    variables: Any,
    optimizer: optax.GradientTransformation,
    key: jax.Array | None = None,
    options: StateOptions = StateOptions(),  # noqa: B008 (immutable)
) -> TrainState:
    """Create the state before the first step from given `{"params", "batch_stats"}`.

    Args:
      variables: of the network.
      optimizer: creates `opt_state`.
      key: the random key of the run.
      options: what else the state has.
    """
    params = variables["params"]
    state = TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), optimizer.init(params))
    data = jax.random.key_data(key) if options.random and key is not None else None
    # Copies, because a step, to which the state's memory is donated, cannot have the same array twice.
    ema = jax.tree.map(jnp.copy, trained_variables(state)) if options.averaged else None
    return state._replace(key=data, ema=ema)


def learned_state(state: TrainState) -> dict[str, Any]:
    """Return the parts by which runs are compared (`state_sha256`).

    These are parameters, batch statistics and momentum; the optimizer's whole state if it has another kind of memory;
    and moving averages, if there are any.
    """
    momentum = momentum_buffer(state.opt_state)
    memory = {"optimizer": state.opt_state.inner_state} if momentum is None else {"momentum": momentum}
    averages = {} if state.ema is None else {"ema": state.ema}
    return {**trained_variables(state), **memory, **averages}


def digest(tree: Any) -> str:
    """SHA-256 over the path, dtype, shape and bytes of every leaf, in the order of the paths."""
    sha256 = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    for name, leaf in sorted(
        ((jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves), key=lambda pair: pair[0]
    ):
        sha256.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        sha256.update(leaf.tobytes())
    return sha256.hexdigest()
