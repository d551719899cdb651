"""Pooling. Max-pooling has its own gradient: XLA's is not deterministic on a GPU and is slow on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_TAPS = [(row, column) for row in range(3) for column in range(3)]


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of each 3x3 window at stride 2, padded by one: [N, H, W, C] to [N, ceil(H/2), ceil(W/2), C].

    Of equal values the first in row-major order gets the gradient, as in XLA and PyTorch.
    """
    return _largest(x)[0]


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest, place = _largest(x)
    # An empty array carries the size of `x`, which does not follow from the size of the result.
    return largest, (place, jnp.zeros((*x.shape[1:3], 0), x.dtype))


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    place, size = saved
    # If a CPU fused this into the interleaving below, it would compute each quarter again for every pixel.
    even_even, even_odd, odd_even, odd_odd = lax.optimization_barrier(_quarters(place, gradient))
    even_rows = jnp.stack([even_even, even_odd], axis=3)
    odd_rows = jnp.stack([odd_even, odd_odd], axis=3)
    rows = jnp.stack([even_rows, odd_rows], axis=2)
    batch, height, width, channels = even_even.shape
    padded = rows.reshape(batch, 2 * height, 2 * width, channels)
    return (padded[:, 1 : 1 + size.shape[0], 1 : 1 + size.shape[1]],)


max_pool.defvjp(_forward, _backward)


def _largest(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest value of each window, and its position in the window, 0 to 8."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    padding = ((0, 0, 0), (1, 2 * rows - height, 0), (1, 2 * columns - width, 0), (0, 0, 0))
    padded = lax.pad(x, np.asarray(-np.inf, x.dtype)[()], padding)
    views = [padded[:, row : row + 2 * rows - 1 : 2, column : column + 2 * columns - 1 : 2] for row, column in _TAPS]
    largest, place = views[0], jnp.zeros((batch, rows, columns, channels), jnp.uint8)
    for index, view in enumerate(views[1:], start=1):
        place = jnp.where(view > largest, jnp.uint8(index), place)
        largest = jnp.maximum(view, largest)
    return largest, place


def _quarters(place: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Gradient of the padded image at its (even, even), (even, odd), (odd, even) and (odd, odd) rows and columns.

    An even row lies in two windows, at the top of one and at the bottom of the one before; an odd row lies in the
    middle of one. The same holds for columns.
    """

    def of(row: int, column: int) -> jax.Array:
        taken = jnp.where(place == 3 * row + column, gradient, jnp.zeros((), gradient.dtype))
        below, right = int(row == 2), int(column == 2)
        return jnp.pad(taken, ((0, 0), (below, 1 - below), (right, 1 - right), (0, 0)))

    even_even = of(0, 0) + of(0, 2) + of(2, 0) + of(2, 2)
    return even_even, of(0, 1) + of(2, 1), of(1, 0) + of(1, 2), of(1, 1)


def avg_pool(x: jax.Array, stride: int) -> jax.Array:
    """Mean of each 3x3 window; padding counts as zeros (PyTorch's `count_include_pad`)."""
    return _window_sum(x, 3, stride, (1, 1), (1, 1)) / 9


def shrink_average(x: jax.Array, stride: int) -> jax.Array:
    """Mean of disjoint windows of side `stride`; incomplete windows at the edge average the pixels that they have."""
    if stride == 1:
        return x
    missing_height, missing_width = (-x.shape[1] % stride, -x.shape[2] % stride)
    totals = _window_sum(x, stride, stride, (0, missing_height), (0, missing_width))
    counts = np.outer(_pixels_per_window(x.shape[1], stride), _pixels_per_window(x.shape[2], stride))
    return totals / counts.astype(x.dtype)[None, :, :, None]


def _pixels_per_window(length: int, stride: int) -> np.ndarray:
    starts = np.arange(0, length, stride)
    return np.minimum(starts + stride, length) - starts


def _window_sum(x: jax.Array, size: int, stride: int, height: tuple[int, int], width: tuple[int, int]) -> jax.Array:
    """Sums over windows; on a CPU, where XLA's own and its gradient are many times slower, as a sum of shifted maps."""
    padding = ((0, 0), height, width, (0, 0))
    rows, columns = ((sum(padding[axis]) + x.shape[axis] - size) // stride + 1 for axis in (1, 2))

    def windows(x: jax.Array) -> jax.Array:
        sides, strides = (1, size, size, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, np.zeros((), x.dtype)[()], lax.add, sides, strides, padding)

    def shifted(x: jax.Array) -> jax.Array:
        down, right = stride * (rows - 1) + 1, stride * (columns - 1) + 1
        padded, places = jnp.pad(x, padding), [(row, column) for row in range(size) for column in range(size)]
        taps = [padded[:, row : row + down : stride, column : column + right : stride] for row, column in places]
        return sum(taps[1:], start=taps[0])

    return lax.platform_dependent(x, cpu=shifted, default=windows)
