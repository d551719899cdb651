"""Small convolutions on a CPU as products of whole rows.

One matrix product of neighbouring pixels of a row with all rows of a kernel gives the contributions of that row of the
image to the rows of the result around it; the shifted maps are then summed. Patches would take nine times the memory of
the image; this takes three times the image and three times the result.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .contraction import contract_rows

_MOST_BYTES = 80_000_000
"""Bytes of rows and products together; above, memory takes longer than the products."""

_WIDE = 256
"""From this number of output channels on, XLA's own convolution fills both cores, and is as fast."""


def rows_pay(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Whether products of rows are faster than XLA's convolution of [N, H, W, C] with [K, K, C, O] and its gradients.

    The gradients need the same rows as the convolution. False if N is a symbol, as in a program exported for any batch
    size: the memory is then unknown.
    """
    if not isinstance(x.shape[0], int):
        return False
    size, channels, features = kernel.shape[1:]
    rows = x.shape[0] * x.shape[1] * -(-x.shape[2] // stride)
    return size > 1 and features < _WIDE and rows * size * (channels + features) * x.dtype.itemsize <= _MOST_BYTES


def convolve_by_rows(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve images [N, H, W, C] with a square HWIO kernel, padded by half the kernel.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), O]
    """
    height, maps = -(-x.shape[1] // stride), []
    for phase in _phases(x, kernel, stride):
        rows = _neighbours(_rows(x, phase.row, stride), len(kernel), stride)
        products = (_flat(rows) @ _weights(kernel, phase.tap, stride)).reshape(*rows.shape[:3], -1, kernel.shape[-1])
        maps += [_shift_rows(products[:, :, :, at], shift, height) for at, shift in enumerate(phase.shifts)]
    return sum(maps[1:], start=maps[0])


def gradients_by_rows(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """The gradients of `x` and `kernel` from that of the result [N, ceil(H / stride), ceil(W / stride), O]."""
    of_rows, of_kernel = [], jnp.zeros_like(kernel)
    for phase in _phases(x, kernel, stride):
        rows = _neighbours(_rows(x, phase.row, stride), len(kernel), stride)
        weights, back_to_kernel = jax.vjp(partial(_weights, first=phase.tap, stride=stride), kernel)
        of_products = jnp.concatenate([_shift_rows(gradient, -shift, rows.shape[1]) for shift in phase.shifts], axis=-1)
        of_neighbours = (_flat(of_products) @ weights.T).reshape(rows.shape)
        of_rows.append(_sum_over_neighbours(of_neighbours, len(kernel), stride, x.shape[2]))
        of_kernel += back_to_kernel(contract_rows(_flat(rows), _flat(of_products)))[0]
    return _interleave(of_rows, 1, x.shape[1]), of_kernel


class _Phase(NamedTuple):
    """Rows of the image that meet the same rows of the kernel: every `stride`-th row from a first one."""

    row: int
    tap: int
    shifts: list[int]
    """Image row `row + stride * i` and kernel row `tap + stride * t` meet in row `i + shifts[t]` of the result."""


def _phases(x: jax.Array, kernel: jax.Array, stride: int) -> Iterator[_Phase]:
    size = len(kernel)
    for row in range(min(stride, x.shape[1])):
        tap = (row + size // 2) % stride
        yield _Phase(row, tap, [(row + size // 2 - tap) // stride for tap in range(tap, size, stride)])


def _neighbours(x: jax.Array, size: int, stride: int) -> jax.Array:
    """The input of a row of the kernel at each position: [N, H, ceil(W / stride), size * C]."""
    last = stride * (-(-x.shape[2] // stride) - 1) + 1
    padded = jnp.pad(x, ((0, 0), (0, 0), (size // 2, size // 2), (0, 0)))
    taps = [lax.slice_in_dim(padded, at, at + last, stride, axis=2) for at in range(size)]
    return jnp.concatenate(taps, axis=-1)


def _sum_over_neighbours(gradient: jax.Array, size: int, stride: int, width: int) -> jax.Array:
    """The gradient of some rows of the image from that of their `_neighbours`."""
    taps, half = jnp.split(gradient, size, axis=-1), size // 2
    columns = []
    for first in range(min(stride, width)):
        # Tap t at position j reads column stride * j + t - half: every stride-th tap reads columns of one remainder.
        seen = range((half + first) % stride, size, stride)
        shifted = [_shift_columns(taps[tap], (tap - half - first) // stride) for tap in seen]
        columns.append(sum(shifted[1:], start=shifted[0]))
    return _interleave(columns, 2, width)


def _interleave(parts: Sequence[jax.Array], axis: int, length: int) -> jax.Array:
    """Interleaves n parts along an axis, each with every n-th position; the last parts may be one position shorter."""
    if len(parts) == 1:
        return parts[0]
    most = parts[0].shape[axis]
    whole = [jnp.pad(part, [(0, most - part.shape[at] if at == axis else 0) for at in range(4)]) for part in parts]
    stacked = jnp.stack(whole, axis=axis + 1)
    return lax.slice_in_dim(
        stacked.reshape(*stacked.shape[:axis], -1, *stacked.shape[axis + 2 :]), 0, length, axis=axis
    )


def _rows(x: jax.Array, first: int, stride: int) -> jax.Array:
    return lax.slice_in_dim(x, first, None, stride, axis=1)


def _weights(kernel: jax.Array, first: int, stride: int) -> jax.Array:
    """Every `stride`-th row of the kernel from the `first`, side by side: [K * C, T * O]."""
    taps = lax.slice_in_dim(kernel, first, None, stride)
    return taps.transpose(1, 2, 0, 3).reshape(kernel.shape[1] * kernel.shape[2], -1)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _shift_rows(x: jax.Array, down: int, height: int) -> jax.Array:
    """`x` [N, H, W, O] moved down by `down` rows in a map of `height` rows, with zeros around."""
    nothing, rows = (0, 0, 0), (down, height - down - x.shape[1], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), (nothing, rows, nothing, nothing))


def _shift_columns(x: jax.Array, right: int) -> jax.Array:
    """`x` [N, H, W, C] moved by `right` columns, with zeros around."""
    nothing = (0, 0, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), (nothing, nothing, (right, -right, 0), nothing))
