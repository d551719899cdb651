"""Convolution on NVIDIA's GPUs, in shapes that their matrix units take without padding or repacking.

The sums are those of `convolve_plainly`; only their order differs.
"""

import jax
import jax.numpy as jnp

from .plain_convolution import convolve_padded, convolve_plainly

_ALIGNED_BYTES = 16
"""One load of the library's kernels; if a pixel is no multiple of it, the library pads the map in a separate pass."""

_FEW_CHANNELS = 4
"""Up to this number of channels, most of each load would be padding."""

_THIN_GROUP = 16
"""Groups with fewer channels are joined, with zeros between them: the library is slower with thin groups."""

_JOINED_CHANNELS = 64
"""Groups are joined until they have this many channels."""


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
    """An equivalent kernel [K, K, I, O] of fewer groups, with zeros between the groups that it joins."""
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

    If half the kernel is odd, the kernel is shifted by a pixel. Then each of its taps lies at the same position of a
    square for every output, so that the kernel divides into squares as well.
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
    """Pads the channels to whole loads with zeros; the compiler adds them where the map is computed.

    `margins` are zeros before and after the rows and the columns.
    """
    aligned, features = _ALIGNED_BYTES // x.dtype.itemsize, kernel.shape[-1]
    missing = -x.shape[-1] % aligned
    # The library takes equal margins only.
    around, within = (margins, (0, 0)) if margins[0] != margins[1] else ((0, 0), margins)
    x = jnp.pad(x, ((0, 0), around, around, (0, missing)))
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, missing), (0, -features % aligned)))
    return convolve_padded(x, kernel, stride, 1, (within, within))[..., :features]
