"""One mesh with one axis, over which the examples of a batch are sharded; state is replicated."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

AXIS = "data"

_P = ParamSpec("_P")

_R = TypeVar("_R")


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices of all processes along the data axis, or those given."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_along(mesh: Mesh, dimension: int) -> NamedSharding:
    """Spread over the devices along one dimension of an array, whole along those before it."""
    return NamedSharding(mesh, PartitionSpec(*[None] * dimension, AXIS))


def on_mesh(mesh: Mesh, function: Callable[_P, _R]) -> Callable[_P, _R]:
    """`function` for `jax.jit`, traced where a network can see the mesh.

    `models.convolution` divides by it what XLA's partitioner would compute whole on every device.
    """

    @functools.wraps(function)
    def traced(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return traced


def place(tree: Any, sharding: Sharding) -> Any:
    """Arrays, which every process holds alike, as arrays of the given placement.

    `jax.device_put` would send each of them to all processes first, to compare them.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place_leaf(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        held = np.asarray(leaf)
        return jax.make_array_from_callback(held.shape, sharding, lambda share: held[share])

    return jax.tree.map(place_leaf, tree)
