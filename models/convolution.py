"""Convolution, with special lowerings on CPUs and on NVIDIA's GPUs (gpu_convolution.py).

XLA's convolutions are fast on accelerators, but some are slow on a CPU: the gradient of a 3x3 kernel takes up to seven
times as long as necessary, a 1x1 convolution is faster as a matrix product, and grouped convolutions are up to a
hundred times slower than dense ones. The sums are the same; only their order differs.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from .contraction import contract_rows
from .gpu_convolution import convolve_on_gpu
from .plain_convolution import convolve_plainly
from .row_products import convolve_by_rows, gradients_by_rows, rows_pay

_PATCH_BYTES = 4_000_000
"""Patches of a 3x3 kernel are nine times the image: more than this at once exceeds the cache and causes page faults."""

_PATCHES_PAY = 2e8
"""Operations from which the gradient of a kernel is a product with patches; below, XLA's has less overhead."""

_DENSE_CHANNELS = 32
"""Groups are joined to dense convolutions of at least this many channels: thinner products leave a core idle."""

_Arrays = tuple[jax.Array, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
    """Convolve images [N, H, W, C] with a square HWIO kernel, padded by half the kernel.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), O]
    """
    plain = functools.partial(convolve_plainly, stride=stride, groups=groups)
    on_cpu = functools.partial(_convolve_on_cpu, stride=stride, groups=groups)
    on_gpu = functools.partial(convolve_on_gpu, stride=stride, groups=groups)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, cuda=on_gpu, default=plain)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, groups: int) -> tuple[jax.Array, _Arrays]:
    return convolve(x, kernel, stride, groups), (x, kernel)


def _backward(stride: int, groups: int, saved: _Arrays, gradient: jax.Array) -> _Arrays:
    def derived(forward: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> _Arrays:
        return jax.vjp(functools.partial(forward, stride=stride, groups=groups), x, kernel)[1](gradient)

    on_cpu = functools.partial(_gradients_on_cpu, stride=stride, groups=groups)
    on_gpu, plain = (functools.partial(derived, forward) for forward in (convolve_on_gpu, convolve_plainly))
    return lax.platform_dependent(*saved, gradient, cpu=on_cpu, cuda=on_gpu, default=plain)


convolve.defvjp(_forward, _backward)


def _convolve_on_cpu(x: jax.Array, kernel: jax.Array, stride: int, groups: int) -> jax.Array:
    if groups > 1:
        kernels = _dense_kernels(kernel, groups)
        pieces = jnp.split(x, len(kernels), axis=-1)
        outputs = [_convolve_on_cpu(piece, dense, stride, 1) for piece, dense in zip(pieces, kernels, strict=True)]
        return jnp.concatenate(outputs, axis=-1)
    if kernel.shape[0] == 1:
        return _multiply(x, kernel, stride)
    if _is_tiny(x, kernel, stride):
        return _multiply_patches(x, kernel, stride)
    if rows_pay(x, kernel, stride):
        return convolve_by_rows(x, kernel, stride)
    return _convolve_alone(x, kernel, stride)


def _gradients_on_cpu(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, groups: int) -> _Arrays:
    if groups > 1:
        return _gradients_of_groups(x, kernel, gradient, stride, groups)
    if kernel.shape[0] == 1:
        (of_x,) = jax.vjp(lambda x: _multiply(x, kernel, stride), x)[1](gradient)
        rows = x[:, ::stride, ::stride].reshape(-1, x.shape[-1])
        return of_x, contract_rows(rows, gradient.reshape(len(rows), -1))[None, None]
    if _is_tiny(x, kernel, stride):
        return jax.vjp(functools.partial(_multiply_patches, stride=stride), x, kernel)[1](gradient)
    if rows_pay(x, kernel, stride):
        return gradients_by_rows(x, kernel, gradient, stride)
    if 2 * gradient.size * kernel.size // kernel.shape[-1] < _PATCHES_PAY:
        return jax.vjp(functools.partial(_convolve_alone, stride=stride), x, kernel)[1](gradient)
    (of_x,) = jax.vjp(lambda x: _convolve_alone(x, kernel, stride), x)[1](gradient)
    return of_x, _gradient_of_kernel(x, gradient, kernel.shape[0], stride)


def _gradients_of_groups(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, groups: int) -> _Arrays:
    kernels, back_to_groups = jax.vjp(lambda kernel: _dense_kernels(kernel, groups), kernel)
    pieces = jnp.split(x, len(kernels), axis=-1)
    gradients = jnp.split(gradient, len(kernels), axis=-1)
    of_pieces, of_kernels = zip(
        *(_gradients_on_cpu(*three, stride, 1) for three in zip(pieces, kernels, gradients, strict=True)), strict=True
    )
    (of_kernel,) = back_to_groups(jnp.stack(of_kernels))
    return jnp.concatenate(of_pieces, axis=-1), of_kernel


def _convolve_alone(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The library's convolution; in bfloat16 with barriers around it, across which XLA fuses nothing.

    XLA hands convolutions and what lies between them to its library in one piece, and in bfloat16 some pieces come back
    as NaN (JAX 0.11.2 and 0.12.0.1).
    """
    if x.dtype != jnp.bfloat16:
        return convolve_plainly(x, kernel, stride)
    x, kernel = lax.optimization_barrier((x, kernel))
    return lax.optimization_barrier(convolve_plainly(x, kernel, stride))


def _multiply(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A 1x1 convolution as a product of matrices."""
    return jnp.einsum("nhwc,co->nhwo", x[:, ::stride, ::stride], kernel[0, 0])


def _is_tiny(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Whether the output is smaller than the kernel: XLA then takes a far slower path than its usual one."""
    return -(-min(x.shape[1:3]) // stride) < kernel.shape[0]


def _multiply_patches(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A convolution as a product of all its patches with the kernel."""
    size, features = kernel.shape[0], kernel.shape[-1]
    height, width = (-(-side // stride) for side in x.shape[1:3])
    patches = _patches(_padded(x, size), size, stride, height, width)
    return jnp.einsum("nhwp,pf->nhwf", patches, kernel.reshape(-1, features))


def _padded(x: jax.Array, size: int) -> jax.Array:
    half = size // 2
    return jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))


def _gradient_of_kernel(x: jax.Array, gradient: jax.Array, size: int, stride: int) -> jax.Array:
    """The sum over what each device holds of the batch: a loop over all of it would gather it on every device."""
    shares = math.gcd(len(x), jax.device_count())
    if shares == 1:
        return _gradient_of_share(x, gradient, size, stride)
    images, outputs = (array.reshape(shares, -1, *array.shape[1:]) for array in (x, gradient))
    return jax.vmap(functools.partial(_gradient_of_share, size=size, stride=stride))(images, outputs).sum(0)


def _gradient_of_share(x: jax.Array, gradient: jax.Array, size: int, stride: int) -> jax.Array:
    """Patches of a few images at a time, times the gradient of the output."""
    batch, height, width, features = gradient.shape
    patch = size * size * x.shape[-1]
    count = _images_at_once(batch, height * width * patch * x.dtype.itemsize)
    x = _padded(x, size)

    def add(index: jax.Array, total: jax.Array) -> jax.Array:
        images = lax.dynamic_slice_in_dim(x, index * count, count)
        patches = _patches(images, size, stride, height, width).reshape(-1, patch)
        outputs = lax.dynamic_slice_in_dim(gradient, index * count, count).reshape(-1, features)
        return total + contract_rows(patches, outputs)

    total = lax.fori_loop(0, batch // count, add, jnp.zeros((patch, features), x.dtype))
    return total.reshape(size, size, -1, features)


def _images_at_once(batch: int, bytes_per_image: int) -> int:
    fitting = max(1, _PATCH_BYTES // bytes_per_image)
    return max(count for count in range(1, batch + 1) if batch % count == 0 and count <= fitting)


def _patches(padded: jax.Array, size: int, stride: int, height: int, width: int) -> jax.Array:
    """The kernel's input at each position: [N, height, width, size * size * C]."""
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    taps = [
        padded[:, row : row + rows : stride, column : column + columns : stride]
        for row in range(size)
        for column in range(size)
    ]
    return jnp.concatenate(taps, axis=-1)


def _dense_kernels(kernel: jax.Array, groups: int) -> jax.Array:
    """Dense kernels [D, H, W, I, O] equivalent to the grouped `kernel`: groups side by side, zeros between them."""
    size, group_width, features = kernel.shape[0], kernel.shape[2], kernel.shape[3]
    together = _groups_together(groups, group_width)
    blocks = kernel.reshape(size, size, group_width, groups // together, together, features // groups)
    dense = jnp.einsum("hwidgo,gk->dhwkigo", blocks, jnp.eye(together, dtype=kernel.dtype))
    return dense.reshape(groups // together, size, size, together * group_width, together * (features // groups))


def _groups_together(groups: int, group_width: int) -> int:
    enough = min(groups, -(-_DENSE_CHANNELS // group_width))
    return min(count for count in range(enough, groups + 1) if groups % count == 0)
