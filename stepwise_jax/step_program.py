"""A training call compiled outside a run, with what is known of it before it runs: seconds, operations, memory."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn
from jax.sharding import Mesh

from stepwise_jax.data.batches import Picked, Resident
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.functional.state import TrainState, make_initializer
from stepwise_jax.functional.train_step import make_train_step
from stepwise_jax.programs import make_train_call
from stepwise_jax.runtime.sharding import on_mesh, replicated, split_along
from stepwise_jax.runtime.xla_options import compiler_options

_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class Compiled(NamedTuple):
    """A compiled training call and what it took."""

    call: Callable[[TrainState, Resident | None, Picked], tuple[TrainState, jax.Array]]
    seconds: float
    """From Python to the program, tracing included."""
    cached: bool
    """Whether the persistent compilation cache had the program already."""
    new_bytes: int
    """What the program takes on a device beside its arguments."""
    bytes: int
    """What the program and its arguments take on a device."""


def train_function(
    network: nn.Module, optimizer: optax.GradientTransformation, preprocessing: Preprocessing, mesh: Mesh
) -> Any:
    """The training call of `Programs`, jitted: `state, examples, picked [k, b] -> state, losses [k]`."""
    whole = replicated(mesh)
    return jax.jit(
        on_mesh(mesh, make_train_call(make_train_step(network, optimizer), preprocessing)),
        in_shardings=(whole, None, split_along(mesh, 1)),
        out_shardings=whole,
        donate_argnames="state",
        compiler_options=compiler_options(False, jax.default_backend()),
    )


def first_state(network: nn.Module, optimizer: optax.GradientTransformation, image_size: int, mesh: Mesh) -> TrainState:
    """Random weights, on every device."""
    # Without optimisation the random generators take less time together than LLVM takes to optimise them.
    quick = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    create = jax.jit(make_initializer(network, optimizer, image_size), compiler_options=quick)
    return jax.device_put(create(jax.random.key(0)), replicated(mesh))


def compile_call(function: Any, state: TrainState, examples: Resident | None, picked: Any) -> Compiled:
    """Compiles a jitted training call for a feed's abstract call [k, b]."""
    hits: list[str] = []

    def listen(event: str, **_: str | int) -> None:
        hits.extend([event] if event == _CACHE_HIT else [])

    jax.monitoring.register_event_listener(listen)
    started = time.perf_counter()
    try:
        call = function.lower(state, examples, picked).compile()
    finally:
        jax.monitoring.unregister_event_listener(listen)
    seconds, memory = time.perf_counter() - started, call.memory_analysis()
    # The state that comes out lies where the state that went in lay.
    new = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(call, seconds, bool(hits), new, new + memory.argument_size_in_bytes)
