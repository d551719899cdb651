"""One mesh with one axis, over which the examples of a batch are spread; state is on every device."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from stepwise_jax.errors import InputError
from stepwise_jax.stages import Stage

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


def check_batches(stages: Sequence[Stage], mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share evenly.

    Raises:
      InputError: with the nearest batch sizes that fit, and the numbers of devices that fit every stage.
    """
    devices = mesh.size
    for index, stage in enumerate(stages, start=1):
        below = stage.batch_size // devices * devices
        if below != stage.batch_size:
            fitting = " or ".join(str(size) for size in (below, below + devices) if size)
            raise InputError(
                f"batch_size of stage {index} ({stage.name}) is {stage.batch_size}: "
                f"{devices} devices share a batch evenly, so it must be {fitting}; "
                f"the batches of this plan fit {_device_counts(stages, devices)}"
            )


def _device_counts(stages: Sequence[Stage], most: int) -> str:
    """The numbers of devices below `most` that share every stage's batch evenly, in words."""
    common = math.gcd(*(stage.batch_size for stage in stages))
    *others, last = (str(count) for count in range(1, most) if common % count == 0)
    return f"{', '.join(others)} or {last} devices" if others else "one device alone"
