"""One mesh with one axis, over which the examples of a batch are spread; state is on every device."""

import math
from collections.abc import Sequence

from jax.sharding import Mesh

from stepwise_jax.errors import InputError
from stepwise_jax.plans.stage import Stage


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
