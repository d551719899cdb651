"""Floating-point operations of a training call, as XLA counts them."""

from collections.abc import Callable
from typing import Any

import jax

from stepwise_jax.batches import Picked, Resident
from stepwise_jax.state import TrainState

TrainCall = Callable[[TrainState, Resident | None, Picked], tuple[TrainState, jax.Array]]


def count_flops(call: Any, state: TrainState, examples: Resident | None, picked: Any) -> float | None:
    """Floating-point operations of an abstract jitted call [1, b], or None where XLA does not count them.

    They are counted in the graph that accelerators get, before XLA rewrites it: in a CPU's graph, and inside the calls
    to libraries of a compiled one, it does not see all products.
    """
    platform = "tpu" if jax.default_backend() == "tpu" else "cuda"
    lowered = call.trace(state, examples, picked).lower(lowering_platforms=(platform,))
    return float((lowered.cost_analysis() or {}).get("flops", 0.0)) or None
