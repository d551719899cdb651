"""XLA's own convolution, on one device or several."""

import functools

import jax
from jax import lax
from jax.sharding import PartitionSpec


def convolve_plainly(x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
    """Convolve images [N, H, W, C] with a square HWIO kernel, padded by half the kernel.

    XLA's partitioner does not divide a grouped convolution by images: on a mesh of several devices, each gets its own
    images here.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), O]
    """
    half = kernel.shape[0] // 2
    return convolve_padded(x, kernel, stride, groups, ((half, half), (half, half)))


def convolve_padded(
    x: jax.Array, kernel: jax.Array, stride: int, groups: int, padding: tuple[tuple[int, int], tuple[int, int]]
) -> jax.Array:
    """`convolve_plainly` with this padding, zeros before and after the rows and the columns."""
    whole = functools.partial(
        lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    mesh = jax.sharding.get_abstract_mesh()
    if groups == 1 or mesh.size < 2 or x.shape[0] % mesh.size:
        return whole(x, kernel)
    images = PartitionSpec(mesh.axis_names)
    return jax.shard_map(whole, in_specs=(images, PartitionSpec()), out_specs=images)(x, kernel)
