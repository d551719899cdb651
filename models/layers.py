"""The layers that hold parameters: convolution and batch normalisation.

Everything is NHWC. Kernels are HWIO and padding is PyTorch's (half the kernel on both sides), so that weights trained
in PyTorch give the same results.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from .convolution import convolve
from .normalisation import Normalised, at_least_float32, normalise, unbiased

Initializer = Callable[..., jax.Array]

# Networks repeat their blocks: under `jit`, each shape is traced once.
_convolve = jax.jit(convolve, static_argnums=(2, 3))
_normalise = jax.jit(normalise, static_argnums=(4, 5))


def he_normal_fan_out(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """He et al. (2015) over the fan out, as in PyTorch's reference ResNets; `shape` is HWIO."""
    return _draw(jax.random.normal, key, shape, dtype) * math.sqrt(2 / (shape[0] * shape[1] * shape[-1]))


def uniform_within(bound: float) -> Initializer:
    """Uniform in [-bound, bound]."""

    def initialize(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return bound * (2 * _draw(jax.random.uniform, key, shape, dtype) - 1)

    return initialize


def _draw(sampler: Callable[..., jax.Array], key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    # On a CPU XLA takes 20 seconds to compile a draw of 3x3x8x9 values, but 0.2 for a power of two.
    size = math.prod(shape)
    return sampler(key, (1 << (size - 1).bit_length(),), dtype)[:size].reshape(shape)


@jax.custom_vjp
def rectify(x: jax.Array) -> jax.Array:
    """A ReLU whose gradient comes from its result: `x` is neither kept nor recomputed from two maps."""
    return jnp.maximum(x, 0)


def _rectify_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    result = rectify(x)
    return result, result


def _rectify_backward(result: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    # Without the barrier XLA would recompute the result from the two maps that it is the sum of.
    return (jnp.where(lax.optimization_barrier(result) > 0, gradient, 0),)


rectify.defvjp(_rectify_forward, _rectify_backward)


class Conv(nn.Module):
    """A square convolution without bias.

    Attributes:
      features: output channels.
      size: side of the kernel in pixels.
      stride: step of the window in pixels.
      groups: cardinality, the number of groups of channels.
      dtype: computation type; the kernel itself is kept in float32.
    """

    features: int
    size: int
    stride: int = 1
    groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), features]."""
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", he_normal_fan_out, shape, jnp.float32)
        return _convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.groups)


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's conventions.

    The running variance is unbiased (that of flax's own layer is biased), `momentum` is the weight of the new batch,
    and everything is computed in float32 under bfloat16. Under `jit` with sharded images the means are over the global
    batch, because they are ordinary means of a global array.

    Attributes:
      momentum: weight of the batch's statistics in the running ones.
      epsilon: added to the variance.
      scale_init: initialiser of the scale.
      rectified: whether a ReLU follows.
      dtype: type of the result.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    scale_init: Initializer = nn.initializers.ones
    rectified: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise [..., C] over all axes but the last, by the batch's statistics if `train`."""
        channels = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if not train:
            gain = scale * lax.rsqrt(running_var.value + self.epsilon)
            normalised = (at_least_float32(x) - running_mean.value) * gain + bias
            return (nn.relu(normalised) if self.rectified else normalised).astype(self.dtype)
        normalised, mean, var = cast(
            Normalised, _normalise(x, scale, bias, running_mean.value, self.epsilon, self.rectified)
        )
        if not self.is_initializing():
            running_mean.value += self.momentum * (mean - running_mean.value)
            running_var.value += self.momentum * (unbiased(var, x) - running_var.value)
        return normalised.astype(self.dtype)
