"""A mesh with one axis, along which batches are sharded; the state is replicated."""

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
    """Create a mesh of the given devices along the data axis; by default, all devices of all processes."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of an array with a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_along(mesh: Mesh, dimension: int) -> NamedSharding:
    """Return the sharding of an array that is split over the devices along one dimension only."""
    return NamedSharding(mesh, PartitionSpec(*[None] * dimension, AXIS))


def on_mesh(mesh: Mesh, function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wrap `function` for `jax.jit`, so that a network sees the mesh while it is traced.

    `models.convolution` uses it to divide work that XLA's partitioner would replicate on every device.
    """

    @functools.wraps(function)
    def traced(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return traced


def place(tree: Any, sharding: Sharding) -> Any:
    """Place arrays, equal on every process, with the given sharding.

    `jax.device_put` would first send each of them to all processes, to compare them.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place_leaf(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        local = np.asarray(leaf)
        return jax.make_array_from_callback(local.shape, sharding, lambda index: local[index])

    return jax.tree.map(place_leaf, tree)
