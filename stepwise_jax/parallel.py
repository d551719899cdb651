"""One mesh with one axis, over which the examples of a batch are spread; state is on every device."""

from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from stepwise_jax.errors import InputError
from stepwise_jax.stages import Stage

AXIS = "data"


def make_mesh() -> Mesh:
    """All devices along the data axis."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_along(mesh: Mesh, dimension: int) -> NamedSharding:
    """Spread over the devices along one dimension of an array, whole along those before it."""
    return NamedSharding(mesh, PartitionSpec(*[None] * dimension, AXIS))


def check_batches(stages: Sequence[Stage], mesh: Mesh) -> None:
    """Refuses a batch that the devices cannot share evenly.

    Raises:
      InputError: with the nearest batch sizes that fit.
    """
    devices = mesh.size
    for index, stage in enumerate(stages, start=1):
        below = stage.batch_size // devices * devices
        if below != stage.batch_size:
            fitting = " or ".join(str(size) for size in (below, below + devices) if size)
            raise InputError(
                f"batch_size of stage {index} ({stage.name}) is {stage.batch_size}: "
                f"{devices} devices share a batch evenly, so it must be {fitting}"
            )
