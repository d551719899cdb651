"""Floating-point operations of a training call, as XLA counts them."""

from collections.abc import Callable
from typing import Any

import jax

from stepwise_jax.data.batches import Picked, Resident
from stepwise_jax.functional.state import TrainState

TrainCall = Callable[[TrainState, Resident | None, Picked], tuple[TrainState, jax.Array]]


def count_flops(
    call: Any, state: TrainState, examples: Resident | None, picked: Any, *, traced: Any = None
) -> float | None:
    """Floating-point operations of an abstract call [1, b], or None where XLA does not count them.

    They are counted in the graph that a TPU gets, before XLA rewrites it: it has each product as the network means it,
    without the zeros that a GPU's has beside them. In a CPU's graph, and inside the calls to libraries of a compiled
    one, XLA does not see all products.

    Args:
      call: the training call, not jitted.
      state: arrays or their shapes, as the two that follow.
      examples: the split that lies on the device, if one does.
      picked: what the call works on.
      traced: the same jitted, where that has been traced on one device already.
    """
    if jax.default_backend() == "cpu":
        lowered = (traced or jax.jit(call)).trace(state, examples, picked).lower(lowering_platforms=("tpu",))
        return _counted(lowered)
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    # XLA counts for a CPU alone; of arrays elsewhere it is shown the shapes.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, examples, picked))
    with jax.default_device(host):
        return _counted(jax.jit(call).trace(*shapes).lower(lowering_platforms=("tpu",)))


def _counted(lowered: jax.stages.Lowered) -> float | None:
    return float((lowered.cost_analysis() or {}).get("flops", 0.0)) or None
