"""Small convolutions on a CPU as products of whole rows.

Neighbouring pixels of a row times all rows of a kernel are, in one product of matrices, what that row of the image adds
to the rows of the result around it; shifted maps are then summed. Patches would be nine times the image; here are three
times the image and three times the result.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_MOST_BYTES = 25_000_000
"""Rows and products together; with more, memory takes longer than the products."""

_FOR_GRADIENTS = 1.6
"""Times as many bytes: there the rows serve two products, and XLA's own gradient of a kernel is slower still."""

_WIDE = 128
"""Output channels from which XLA's own convolution fills both cores, and is as fast."""


def rows_pay(x: jax.Array, kernel: jax.Array, stride: int, most: float = 1.0) -> bool:
    """Whether this is faster than XLA's convolution of [N, H, W, C] with [K, K, C, O].

    `most` is a factor of the bytes that are allowed. No where N is a symbol, as in a program exported for any batch:
    only a number can be weighed.
    """
    if not isinstance(x.shape[0], int):
        return False
    size, channels, features = kernel.shape[1:]
    rows = x.shape[0] * x.shape[1] * -(-x.shape[2] // stride)
    return (
        size > 1 and features < _WIDE and rows * size * (channels + features) * x.dtype.itemsize <= most * _MOST_BYTES
    )


def rows_pay_for_gradients(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """Whether the gradients of that convolution are faster here."""
    return rows_pay(x, kernel, stride, _FOR_GRADIENTS)


def convolve_by_rows(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve images [N, H, W, C] with a square HWIO kernel, padded by half the kernel.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), O]
    """
    neighbours, height = _neighbours(x, len(kernel), stride), -(-x.shape[1] // stride)
    maps = []
    for phase in _phases(x, kernel, stride):
        rows = _rows(neighbours, phase.row, stride)
        products = (_flat(rows) @ _weights(kernel, phase.tap, stride)).reshape(*rows.shape[:3], -1, kernel.shape[-1])
        maps += [_shift_rows(products[:, :, :, at], shift, height) for at, shift in enumerate(phase.shifts)]
    return sum(maps[1:], start=maps[0])


def gradients_by_rows(x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """The gradients of `x` and `kernel` from that of the result [N, ceil(H / stride), ceil(W / stride), O]."""
    neighbours, back_to_x = jax.vjp(partial(_neighbours, size=len(kernel), stride=stride), x)
    of_neighbours, of_kernel = jnp.zeros_like(neighbours), jnp.zeros_like(kernel)
    for phase in _phases(x, kernel, stride):
        rows, back_to_neighbours = jax.vjp(partial(_rows, first=phase.row, stride=stride), neighbours)
        weights, back_to_kernel = jax.vjp(partial(_weights, first=phase.tap, stride=stride), kernel)
        of_products = jnp.concatenate([_shift_rows(gradient, -shift, rows.shape[1]) for shift in phase.shifts], axis=-1)
        of_neighbours += back_to_neighbours((_flat(of_products) @ weights.T).reshape(rows.shape))[0]
        # The product comes out transposed because that takes half the time.
        of_kernel += back_to_kernel(jnp.einsum("rp,rf->fp", _flat(rows), _flat(of_products)).T)[0]
    return back_to_x(of_neighbours)[0], of_kernel


class _Phase(NamedTuple):
    """Rows of the image that meet the same rows of the kernel: each `stride`-th from a first one."""

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
    """What a row of the kernel sees at each place: [N, H, ceil(W / stride), size * C]."""
    last = stride * (-(-x.shape[2] // stride) - 1) + 1
    padded = jnp.pad(x, ((0, 0), (0, 0), (size // 2, size // 2), (0, 0)))
    taps = [lax.slice_in_dim(padded, at, at + last, stride, axis=2) for at in range(size)]
    return jnp.concatenate(taps, axis=-1)


def _rows(x: jax.Array, first: int, stride: int) -> jax.Array:
    return lax.slice_in_dim(x, first, None, stride, axis=1)


def _weights(kernel: jax.Array, first: int, stride: int) -> jax.Array:
    """Each `stride`-th row of the kernel from the `first`, side by side: [K * C, T * O]."""
    taps = lax.slice_in_dim(kernel, first, None, stride)
    return taps.transpose(1, 2, 0, 3).reshape(kernel.shape[1] * kernel.shape[2], -1)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _shift_rows(x: jax.Array, down: int, height: int) -> jax.Array:
    """`x` [N, H, W, O] moved down by `down` rows in a map of `height` rows, with zeros around."""
    nothing, rows = (0, 0, 0), (down, height - down - x.shape[1], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), (nothing, rows, nothing, nothing))
