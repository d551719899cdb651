"""Convolution on NVIDIA's GPUs, in the shapes that their matrix units take without being padded or repacked first.

The sums are those of `convolve_plainly`; only their order differs.
"""

import jax
import jax.numpy as jnp

from .plain_convolution import convolve_padded, convolve_plainly

_ALIGNED_BYTES = 16
"""What the library's kernels load at once; a pixel that is no multiple of it is padded, in a pass over the map."""

_FEW_CHANNELS = 4
"""Up to so many, most of what is loaded of a pixel would be padding."""

_THIN_GROUP = 16
"""Channels of a group below which groups are joined, zeros between them: the library is slower with thinner ones."""

_JOINED_CHANNELS = 64
"""Groups are joined until they have so many channels."""


def convolve_on_gpu(x: jax.Array, kernel: jax.Array, stride: int, groups: int) -> jax.Array:
    """Convolve images [N, H, W, C] with a square HWIO kernel, padded by half the kernel.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), O]
    """
    size, channels = len(kernel), x.shape[-1]
    if groups > 1:
        kernel, groups = join_groups(kernel, groups)
    if groups > 1:
        return convolve_plainly(x, kernel, stride, groups)
    if size == stride == 1:
        return jnp.einsum("nhwc,co->nhwo", x, kernel[0, 0])
    if channels <= _FEW_CHANNELS and stride == 2 and size > 1 and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        return _convolve_squares(x, kernel)
    return _convolve_aligned(x, kernel, stride, (size // 2, size // 2))


def join_groups(kernel: jax.Array, groups: int) -> tuple[jax.Array, int]:
    """A kernel [K, K, I, O] of fewer groups that does what one of `groups` does, zeros between those that it joins."""
    size, _, width, features = kernel.shape
    if width >= _THIN_GROUP:
        return kernel, groups
    enough = min(groups, -(-_JOINED_CHANNELS // width))
    joined = min(count for count in range(enough, groups + 1) if groups % count == 0)
    blocks = kernel.reshape(size, size, width, groups // joined, joined, features // groups)
    dense = jnp.einsum("hwidgo,gk->hwkidgo", blocks, jnp.eye(joined, dtype=kernel.dtype))
    return dense.reshape(size, size, joined * width, features), groups // joined


def _convolve_squares(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution at stride 2 as one at stride 1, of squares of 2x2 pixels with four times the channels.

    With the kernel moved by a pixel where its half is odd, each of its taps lies at the same place of a square for
    every output: the kernel falls into squares as well.
    """
    size, channels, features = len(kernel), *kernel.shape[2:]
    half, squares = size // 2, (size + 1) // 2
    moved = half % 2
    kernel = jnp.pad(kernel, ((moved, 1 - moved), (moved, 1 - moved), (0, 0), (0, 0)))
    kernel = kernel.reshape(squares, 2, squares, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    before = (half + moved) // 2
    x = x.reshape(batch, height // 2, width // 2, 4 * channels)
    kernel = kernel.reshape(squares, squares, 4 * channels, features)
    return _convolve_aligned(x, kernel, 1, (before, squares - 1 - before))


def _convolve_aligned(x: jax.Array, kernel: jax.Array, stride: int, margins: tuple[int, int]) -> jax.Array:
    """With zeros for the channels that are missing to whole loads; the compiler adds them where the map is made.

    `margins` are zeros before and after the rows and the columns.
    """
    aligned, features = _ALIGNED_BYTES // x.dtype.itemsize, kernel.shape[-1]
    missing = -x.shape[-1] % aligned
    # The library takes no margins that differ.
    around, within = (margins, (0, 0)) if margins[0] != margins[1] else ((0, 0), margins)
    x = jnp.pad(x, ((0, 0), around, around, (0, missing)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, -features % aligned)))
    return convolve_padded(x, kernel, stride, 1, (within, within))[..., :features]
