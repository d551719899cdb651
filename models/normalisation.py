"""Normalisation of each channel by the batch's statistics, with a gradient in closed form (Ioffe and Szegedy, 2015).

Its cost is passes over the maps. On a CPU, XLA passes sums to a library that reads from memory: for the sum of
(x - mean)² XLA writes x - mean first, for the sum of x² it does not. So a CPU sums x itself, unless a channel's mean is
so far from zero that the difference of the sums would lose too many digits. An accelerator sums x - c and its square in
one pass, with c near the mean.
"""

import functools
import math
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

_FAR = 100.0
"""Times the variance: with a larger squared mean the difference of the two sums loses more than two digits of seven."""

Normalised = tuple[jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array, epsilon: float, rectified: bool = False
) -> Normalised:
    """Shift and scale each channel of `x` to mean `bias` and standard deviation `scale`.

    Args:
      x: [..., C].
      scale: [C].
      bias: [C].
      near: [C], values near the channels' means: the nearer, the more digits of the variance are right on an
        accelerator.
      epsilon: added to the variance.
      rectified: whether a ReLU follows.

    Returns:
      The result, of the type of `x` but float32 at least, and the mean and biased variance [C], through which no
      gradient flows.
    """
    wide = at_least_float32(x)
    mean, var = _moments(wide, near)
    result = _scaled(wide, mean, scale * lax.rsqrt(var + epsilon), bias)
    return jnp.maximum(result, 0) if rectified else result, mean, var


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array, epsilon: float, rectified: bool
) -> tuple[Normalised, tuple[jax.Array, ...]]:
    normalised, mean, var = cast(Normalised, normalise(x, scale, bias, near, epsilon, rectified))
    return (normalised, mean, var), (x, scale, bias, mean, lax.rsqrt(var + epsilon))


def _backward(
    epsilon: float, rectified: bool, saved: tuple[jax.Array, ...], gradients: Normalised
) -> tuple[jax.Array, ...]:
    del epsilon
    x, scale, bias, mean, inverse_deviation = saved
    wide, gradient, count = at_least_float32(x), gradients[0], float(math.prod(x.shape[:-1]))
    if rectified:
        gradient = jnp.where(_scaled(wide, mean, scale * inverse_deviation, bias) > 0, gradient, 0)
    of_bias, covariance = _sums_of_gradient(wide, mean, gradient, inverse_deviation)
    of_scale = covariance * inverse_deviation
    # Without (x - mean): XLA would keep that map from the forward pass.
    slope = inverse_deviation * of_scale / count
    of_x = scale * inverse_deviation * (gradient - wide * slope + (mean * slope - of_bias / count))
    return of_x.astype(x.dtype), of_scale, of_bias, jnp.zeros_like(mean)


normalise.defvjp(_forward, _backward)


def _scaled(wide: jax.Array, mean: jax.Array, gain: jax.Array, bias: jax.Array) -> jax.Array:
    return (wide - mean) * gain + bias


def _moments(wide: jax.Array, near: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each channel."""
    axes, count = _all_but_channels(wide), math.prod(wide.shape[:-1])

    def exact(wide: jax.Array, mean: jax.Array) -> jax.Array:
        return jnp.square(wide - mean).mean(axes)

    def guarded(wide: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = wide.mean(axes)
        var = jnp.square(wide).mean(axes) - jnp.square(mean)
        return mean, lax.cond(jnp.all(jnp.square(mean) <= _FAR * var), lambda *_: var, exact, wide, mean)

    def shifted(wide: jax.Array, near: jax.Array) -> tuple[jax.Array, jax.Array]:
        away = wide - near
        mean, square = (total / count for total in _sums(away, jnp.square(away)))
        return near + mean, jnp.maximum(square - jnp.square(mean), 0)

    return lax.platform_dependent(wide, near, cpu=guarded, default=shifted)


def _sums_of_gradient(
    wide: jax.Array, mean: jax.Array, gradient: jax.Array, inverse_deviation: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """For each channel, the sums of the gradient and of the gradient times (x - mean)."""
    axes = _all_but_channels(wide)

    def exact(wide: jax.Array, mean: jax.Array, gradient: jax.Array) -> jax.Array:
        return (gradient * (wide - mean)).sum(axes)

    def guarded(
        wide: jax.Array, mean: jax.Array, gradient: jax.Array, inverse_deviation: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        total = gradient.sum(axes)
        covariance = (gradient * wide).sum(axes) - mean * total
        near = jnp.all(jnp.square(mean * inverse_deviation) <= _FAR)
        return total, lax.cond(near, lambda *_: covariance, exact, wide, mean, gradient)

    def together(wide: jax.Array, mean: jax.Array, gradient: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _sums(gradient, gradient * (wide - mean))

    return lax.platform_dependent(wide, mean, gradient, inverse_deviation, cpu=guarded, default=together)


def _sums(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sums of each channel of two maps."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size < 2 or first.shape[0] % mesh.size:
        return _sums_at_once(first, second)

    def of_share(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
        return lax.psum(_sums_at_once(first, second), mesh.axis_names)

    # XLA's partitioner does not divide a reduction of two arrays: each device gets its own images, as in convolutions.
    images, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    return jax.shard_map(of_share, in_specs=(images, images), out_specs=(whole, whole))(first, second)


def _sums_at_once(first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same in one reduction: half as many kernels as in two, and one pass."""
    zero = np.zeros((), first.dtype)[()]

    def add(left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return left[0] + right[0], left[1] + right[1]

    return lax.reduce((first, second), (zero, zero), add, _all_but_channels(first))


def unbiased(var: jax.Array, x: jax.Array) -> jax.Array:
    """The unbiased variance, from the biased variance of `x`."""
    count = math.prod(x.shape[:-1])
    if count < 2:
        raise ValueError(
            f"images: a batch whose maps shrink to {x.shape} has one value per channel, which has no variance; "
            "train with at least two images or larger ones"
        )
    return var * (count / (count - 1))


def at_least_float32(x: jax.Array) -> jax.Array:
    """`x` in float32, or in float64 if it already is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _all_but_channels(x: jax.Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))
