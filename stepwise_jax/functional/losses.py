"""Loss functions: each factory returns `logits [b, C], targets -> [b]`, in float32 or wider.

Targets are classes, int [b], or probabilities, float [b, C], as mixup makes them.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from stepwise_jax.errors import require

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""`logits [b, C], targets int [b] or float [b, C] -> [b]`."""


def cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Softmax cross-entropy, the paper's loss.

    Args:
      label_smoothing: share of each target that is spread evenly over all classes, below 1: Szegedy et al., "Rethinking
        the Inception architecture" (2016), Section 7.
    """
    _check_smoothing(label_smoothing)
    return partial(softmax_loss, label_smoothing=label_smoothing)


def binary_cross_entropy(label_smoothing: float = 0.0) -> Loss:
    """Sigmoid cross-entropy, summed over the classes, each of which is a yes-or-no question.

    Beyer et al., "Are we done with ImageNet?" (2020), Section 5.

    Args:
      label_smoothing: as in `cross_entropy`.
    """
    _check_smoothing(label_smoothing)
    return partial(sigmoid_loss, label_smoothing=label_smoothing)


def focal(gamma: float = 2.0, label_smoothing: float = 0.0) -> Loss:
    """Softmax cross-entropy in which well-classified examples count less: the sum of -t (1 - p)^gamma log p.

    Lin et al., "Focal loss for dense object detection" (2017), Eq. 4, over the classes of a softmax.

    Args:
      gamma: 0 gives the cross-entropy.
      label_smoothing: as in `cross_entropy`.
    """
    _check_smoothing(label_smoothing)
    require(0 <= gamma < float("inf"), "gamma", gamma, "a number that is not negative")
    return partial(focal_loss, gamma=gamma, label_smoothing=label_smoothing)


def _check_smoothing(label_smoothing: float) -> None:
    require(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "at least 0 and below 1")


def softmax_loss(logits: jax.Array, targets: jax.Array, *, label_smoothing: float) -> jax.Array:
    """The loss of `cross_entropy`: [b, C] and targets to [b]."""
    wide = _widen(logits)
    if targets.ndim == 1 and not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(wide, targets)
    return optax.softmax_cross_entropy(wide, _smooth(_probabilities(targets, wide), label_smoothing))


def sigmoid_loss(logits: jax.Array, targets: jax.Array, *, label_smoothing: float) -> jax.Array:
    """The loss of `binary_cross_entropy`: [b, C] and targets to [b]."""
    wide = _widen(logits)
    probabilities = _smooth(_probabilities(targets, wide), label_smoothing)
    return optax.sigmoid_binary_cross_entropy(wide, probabilities).sum(axis=-1)


def focal_loss(logits: jax.Array, targets: jax.Array, *, gamma: float, label_smoothing: float) -> jax.Array:
    """The loss of `focal`: [b, C] and targets to [b]."""
    log_p = jax.nn.log_softmax(_widen(logits))
    # At p = 1 the power of 0 has no finite slope for gamma below 1.
    weights = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).tiny) ** gamma
    return -(_smooth(_probabilities(targets, log_p), label_smoothing) * weights * log_p).sum(axis=-1)


def _widen(logits: jax.Array) -> jax.Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _probabilities(targets: jax.Array, logits: jax.Array) -> jax.Array:
    if targets.ndim == 1:
        return jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return targets.astype(logits.dtype)


def _smooth(probabilities: jax.Array, label_smoothing: float) -> jax.Array:
    if not label_smoothing:
        return probabilities
    return (1 - label_smoothing) * probabilities + label_smoothing / probabilities.shape[-1]


LOSSES: dict[str, Callable[..., Loss]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "focal": focal,
}
"""The losses that `loss.name` can name."""
