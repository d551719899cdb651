"""The loss and the optimiser step: `state, batch -> state, metrics`."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from stepwise_jax.functional.losses import Loss, cross_entropy
from stepwise_jax.functional.state import TrainState, trained_variables


class Batch(NamedTuple):
    """Preprocessed images, and their targets."""

    images: jax.Array
    """float [b, H, W, 3], scaled and normalised."""
    labels: jax.Array
    """Classes int32 [b], or probabilities float [b, C] after an augmentation that mixes them."""


Metrics = dict[str, jax.Array]

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]

Statistics = Literal["batch", "frozen"]
"""Batch norm's statistics: those of the batch, as in training, or the running ones, as in evaluation."""


def make_train_step(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss | None = None,
    ema_decay: float | None = None,
    microbatches: int = 1,
) -> TrainStep:
    """Make one step of Eq. 7 in its mean form: the gradient of the batch's mean loss, then the optimiser's update.

    Args:
      network: called as `network.apply(variables, images, train=True, rngs=key)`.
      optimizer: updates the parameters.
      loss: `logits [b, C], targets -> [b]`; cross-entropy by default.
      ema_decay: decay of `state.ema`, if the state has one.
      microbatches: parts of a batch whose gradients are computed one after the other, and averaged. It saves memory.
        Batch norm then normalises each part by itself, and its running statistics move once for each part.

    Returns:
      A pure function `state, batch -> state, {"loss": float32 scalar}`, for the caller to jit-compile.
    """
    compute = make_gradient(network, loss=loss, microbatches=microbatches)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        chex.assert_rank([batch.images, batch.labels], [4, {1, 2}])
        chex.assert_equal_shape_prefix([batch.images, batch.labels], 1)
        value, batch_stats, gradients = compute(state, batch)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        after = TrainState(state.step + 1, params, batch_stats, opt_state, state.key, state.ema)
        return _with_average(after, ema_decay), {"loss": value}

    return step


def make_gradient(
    network: nn.Module, *, loss: Loss | None = None, statistics: Statistics = "batch", microbatches: int = 1
) -> Callable[[TrainState, Batch], tuple[jax.Array, Any, Any]]:
    """Return a pure function `state, batch -> mean loss, new batch_stats, gradients` of the mean loss.

    Args:
      network: as in `make_train_step`, like the loss and the microbatches.
      loss: cross-entropy by default.
      statistics: with "frozen", the network is in evaluation mode, so that the gradient is the mean of its examples'.
      microbatches: parts of a batch whose gradients are computed one after the other.
    """
    make = _make_loss if statistics == "batch" else _make_frozen_loss
    compute = jax.value_and_grad(make(network, loss or cross_entropy()), has_aux=True)

    def gradient(state: TrainState, batch: Batch) -> tuple[jax.Array, Any, Any]:
        key = step_key(state, "network")
        if microbatches > 1:
            return _accumulate(compute, state, batch, key, microbatches)
        (value, batch_stats), gradients = compute(state.params, state.batch_stats, batch, key)
        return value, batch_stats, gradients

    return gradient


def _make_frozen_loss(network: nn.Module, loss: Loss) -> Callable[[Any, Any, Batch, Any], tuple[jax.Array, Any]]:
    """Return the function of `_make_loss` for a network in evaluation mode, which leaves the batch statistics."""

    def loss_and_statistics(params: Any, batch_stats: Any, batch: Batch, _: Any) -> tuple[jax.Array, Any]:
        logits: Any = network.apply({"params": params, "batch_stats": batch_stats}, batch.images, train=False)
        return loss(logits, batch.labels).mean(), batch_stats

    return loss_and_statistics


def _make_loss(network: nn.Module, loss: Loss) -> Callable[[Any, Any, Batch, Any], tuple[jax.Array, Any]]:
    """Return the function `params, batch_stats, batch, key -> mean loss, new batch_stats`."""

    def loss_and_statistics(params: Any, batch_stats: Any, batch: Batch, key: Any) -> tuple[jax.Array, Any]:
        variables, rngs = {"params": params, "batch_stats": batch_stats}, None if key is None else {"params": key}
        logits, updated = network.apply(variables, batch.images, train=True, mutable=["batch_stats"], rngs=rngs)  # pyright: ignore
        return loss(logits, batch.labels).mean(), updated.get("batch_stats", batch_stats)

    return loss_and_statistics


def step_key(state: TrainState, purpose: str) -> jax.Array | None:
    """Return the random key of an update, a function of the seed and the update alone; None if the state has no key.

    Args:
      state: before the update.
      purpose: "augmentation" or "network"; each has a key of its own.
    """
    if state.key is None:
        return None
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    return jax.random.fold_in(key, ("augmentation", "network").index(purpose))


def _accumulate(compute: Any, state: TrainState, batch: Batch, key: Any, parts: int) -> tuple[jax.Array, Any, Any]:
    """Return mean loss, batch statistics and mean gradients of a batch, part by part."""
    split = jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), batch)

    def one(carry: tuple[Any, ...], part: tuple[Batch, jax.Array]) -> tuple[tuple[Any, ...], None]:
        total, batch_stats, gradients = carry
        part_key = None if key is None else jax.random.fold_in(key, part[1])
        (value, batch_stats), more = compute(state.params, batch_stats, part[0], part_key)
        return (total + value, batch_stats, jax.tree.map(jnp.add, gradients, more)), None

    start = (jnp.zeros(()), state.batch_stats, jax.tree.map(jnp.zeros_like, state.params))
    (total, batch_stats, gradients), _ = jax.lax.scan(one, start, (split, jnp.arange(parts)))
    return total / parts, batch_stats, jax.tree.map(lambda leaf: leaf / parts, gradients)


def _with_average(state: TrainState, decay: float | None) -> TrainState:
    if state.ema is None or decay is None:
        return state
    move = lambda average, value: decay * average + (1 - decay) * value  # noqa: E731
    return state._replace(ema=jax.tree.map(move, state.ema, trained_variables(state)))
