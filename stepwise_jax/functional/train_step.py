"""The loss and the optimiser step: `state, batch -> state, metrics`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import optax
from flax import linen as nn

from stepwise_jax.functional.losses import cross_entropy
from stepwise_jax.functional.state import TrainState


class Batch(NamedTuple):
    """Preprocessed images, and their classes."""

    images: jax.Array
    """float [b, H, W, 3], scaled and normalised."""
    labels: jax.Array
    """int32 [b]."""


Metrics = dict[str, jax.Array]

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(network: nn.Module, optimizer: optax.GradientTransformation) -> TrainStep:
    """Make one step of Eq. 7 in its mean form: the gradient of the batch's mean loss, then the optimiser's update.

    Returns:
      A pure function `state, batch -> state, {"loss": float32 scalar}`, for the caller to jit-compile.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        chex.assert_rank([batch.images, batch.labels], [4, 1])
        chex.assert_equal_shape_prefix([batch.images, batch.labels], 1)

        def loss_and_statistics(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, updated = network.apply(variables, batch.images, train=True, mutable=["batch_stats"])  # pyright: ignore
            return cross_entropy(logits, batch.labels).mean(), updated["batch_stats"]

        (loss, batch_stats), gradients = jax.value_and_grad(loss_and_statistics, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, batch_stats, opt_state), {"loss": loss}

    return step
