"""Normalising each channel by the batch's own statistics, with a gradient in closed form (Ioffe and Szegedy, 2015).

What it costs is passes over the maps. On a CPU, XLA hands sums to a library that reads what lies in memory: the sum of
(x - mean)² makes it write x - mean first, where the sum of x² does not. So there the sums are of x itself, unless a
channel's mean is so far from zero that too little would be left of their difference.
"""

import functools
import math
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax

_FAR = 100.0
"""Times the variance: a squared mean beyond it costs the difference of the two sums more than two digits of seven."""

Normalised = tuple[jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> Normalised:
    """Shift and scale each channel of `x` to mean `bias` and standard deviation `scale`.

    Returns:
      The result, of the type of `x` but float32 at least, and the mean and biased variance [C], through which no
      gradient flows.
    """
    wide = at_least_float32(x)
    mean = wide.mean(_all_but_channels(x))
    var = _variance(wide, mean)
    return (wide - mean) * (scale * lax.rsqrt(var + epsilon)) + bias, mean, var


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[Normalised, tuple[jax.Array, ...]]:
    normalised, mean, var = cast(Normalised, normalise(x, scale, bias, epsilon))
    return (normalised, mean, var), (x, scale, mean, lax.rsqrt(var + epsilon))


def _backward(epsilon: float, saved: tuple[jax.Array, ...], gradients: Normalised) -> Normalised:
    del epsilon
    x, scale, mean, inverse_deviation = saved
    wide, gradient, count = at_least_float32(x), gradients[0], float(math.prod(x.shape[:-1]))
    of_bias = gradient.sum(_all_but_channels(x))
    of_scale = _covariance(wide, mean, gradient, of_bias, inverse_deviation) * inverse_deviation
    # Not (x - mean) once more: XLA would keep the forward pass's for it, a map of memory.
    slope = inverse_deviation * of_scale / count
    of_x = scale * inverse_deviation * (gradient - wide * slope + (mean * slope - of_bias / count))
    return of_x.astype(x.dtype), of_scale, of_bias


normalise.defvjp(_forward, _backward)


def _variance(wide: jax.Array, mean: jax.Array) -> jax.Array:
    axes = _all_but_channels(wide)

    def exact(wide: jax.Array, mean: jax.Array) -> jax.Array:
        return jnp.square(wide - mean).mean(axes)

    def quick(wide: jax.Array, mean: jax.Array) -> jax.Array:
        var = jnp.square(wide).mean(axes) - jnp.square(mean)
        near = jnp.all(jnp.square(mean) <= _FAR * var)
        return lax.cond(near, lambda *_: var, exact, wide, mean)

    return lax.platform_dependent(wide, mean, cpu=quick, default=exact)


def _covariance(
    wide: jax.Array, mean: jax.Array, gradient: jax.Array, total: jax.Array, inverse_deviation: jax.Array
) -> jax.Array:
    """The sum of (x - mean) times the gradient, whose own sum is `total`."""
    axes = _all_but_channels(wide)

    def exact(wide: jax.Array, mean: jax.Array, gradient: jax.Array) -> jax.Array:
        return (gradient * (wide - mean)).sum(axes)

    def quick(wide: jax.Array, mean: jax.Array, gradient: jax.Array) -> jax.Array:
        covariance = (gradient * wide).sum(axes) - mean * total
        near = jnp.all(jnp.square(mean * inverse_deviation) <= _FAR)
        return lax.cond(near, lambda *_: covariance, exact, wide, mean, gradient)

    return lax.platform_dependent(wide, mean, gradient, cpu=quick, default=exact)


def unbiased(var: jax.Array, x: jax.Array) -> jax.Array:
    """The variance of the population that `x` is a sample of, from the sample's own."""
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
