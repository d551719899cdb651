"""All that training changes, as one flat pytree, and what of it crosses a stage boundary."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from stepwise_jax.experiment.config import PlanConfig
from stepwise_jax.functional.batch_statistics import initial_statistics
from stepwise_jax.functional.optimizers import momentum_buffer


class TrainState(NamedTuple):
    """What a training step takes and returns."""

    step: jax.Array
    """int32 scalar: optimiser steps since the start of the run."""
    params: Any
    batch_stats: Any
    opt_state: Any


def make_initializer(
    network: nn.Module, optimizer: optax.GradientTransformation, image_size: int
) -> Callable[[jax.Array], TrainState]:
    """A pure function from a random key to the state before the first step, to be jit-compiled by the caller.

    Args:
      network: called as `network.apply(variables, images, train=...)`.
      optimizer: gives the first `opt_state`.
      image_size: height and width of the images, in pixels.
    """

    def create_state(key: jax.Array) -> TrainState:
        images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
        return state_from(network.init(key, images, train=False), optimizer)

    return create_state


def state_from(variables: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step from given `{"params", "batch_stats"}`."""
    params = variables["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, variables.get("batch_stats", {}), optimizer.init(params))


def cross_boundary(
    state: TrainState, initial: Callable[[], TrainState], optimizer: optax.GradientTransformation, plan: PlanConfig
) -> TrainState:
    """What a stage starts from, given the previous stage's end and the run's initial state (`plan.carry`).

    "Re-estimated" batch statistics need the stage's images; `evaluate.reestimate` does that.
    """
    if plan.carry == "nothing":
        return initial()._replace(step=state.step)
    batch_stats = state.batch_stats if plan.batch_statistics == "carried" else initial_statistics(state.batch_stats)
    opt_state = state.opt_state if plan.carry == "state" else optimizer.init(state.params)
    return state._replace(batch_stats=batch_stats, opt_state=opt_state)


def learned(state: TrainState) -> dict[str, Any]:
    """Parameters, batch statistics and momentum: what two runs are compared by (`state_sha256`)."""
    momentum = momentum_buffer(state.opt_state)
    return {"params": state.params, "batch_stats": state.batch_stats, "momentum": momentum}


def digest(tree: Any) -> str:
    """SHA-256 over every leaf's place, dtype, shape and bytes, in the order of the places."""
    sha256 = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    for name, leaf in sorted(
        ((jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves), key=lambda pair: pair[0]
    ):
        sha256.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        sha256.update(leaf.tobytes())
    return sha256.hexdigest()
