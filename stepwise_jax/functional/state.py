"""The training state, as one flat pytree, and the parts of it that cross a stage boundary."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.functional.batch_statistics import initial_batch_stats
from stepwise_jax.functional.optimizers import momentum_buffer


class TrainState(NamedTuple):
    """The state that a training step takes and returns."""

    step: jax.Array
    """int32 scalar: optimiser steps since the start of the run."""
    params: Any
    batch_stats: Any
    opt_state: Any


def make_initializer(
    network: nn.Module, optimizer: optax.GradientTransformation, image_size: int
) -> Callable[[jax.Array], TrainState]:
    """Return a pure function from a random key to the state before the first step, for the caller to jit-compile.

    Args:
      network: called as `network.apply(variables, images, train=...)`.
      optimizer: creates the first `opt_state`.
      image_size: height and width of the images, in pixels.
    """

    def create_state(key: jax.Array) -> TrainState:
        images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
        return state_from_variables(network.init(key, images, train=False), optimizer)

    return create_state


def state_from_variables(variables: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """Create the state before the first step from given `{"params", "batch_stats"}`."""
    params = variables["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), optimizer.init(params))


def cross_stage_boundary(
    state: TrainState,
    make_initial_state: Callable[[], TrainState],
    optimizer: optax.GradientTransformation,
    plan: PlanConfig,
) -> TrainState:
    """Return the state at the start of a stage, from the end of the previous one, by `plan.carry`.

    It resets "reestimated" batch statistics, too: `batch_statistics.reestimate_batch_stats` needs the stage's images.

    Args:
      state: at the end of the previous stage.
      make_initial_state: makes the state before the first step of the run.
      optimizer: creates a new `opt_state`, unless it is carried.
      plan: `carry` and `batch_statistics`.
    """
    if plan.carry == "nothing":
        return make_initial_state()._replace(step=state.step)
    batch_stats = state.batch_stats if plan.batch_statistics == "carried" else initial_batch_stats(state.batch_stats)
    opt_state = state.opt_state if plan.carry == "state" else optimizer.init(state.params)
    return state._replace(batch_stats=batch_stats, opt_state=opt_state)


def learned_state(state: TrainState) -> dict[str, Any]:
    """Return parameters, batch statistics and momentum: the parts by which runs are compared (`state_sha256`)."""
    momentum = momentum_buffer(state.opt_state)
    return {"params": state.params, "batch_stats": state.batch_stats, "momentum": momentum}


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
