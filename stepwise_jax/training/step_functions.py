"""The functions that run on the devices, and what is known of the training call before it runs."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from stepwise_jax.data.batches import Inputs, Resident, gather
from stepwise_jax.functional.metrics import apply, make_count
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.functional.state import TrainState, make_initializer
from stepwise_jax.functional.train_step import Batch, TrainStep, make_train_step
from stepwise_jax.runtime.sharding import on_mesh, replicated, split_along
from stepwise_jax.runtime.xla_options import compiler_options

TrainCall = Callable[[TrainState, Resident | None, Inputs], tuple[TrainState, jax.Array]]


def count_flops(
    call: Any, state: TrainState, examples: Resident | None, inputs: Any, *, traced: Any = None
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
        lowered = (traced or jax.jit(call)).trace(state, examples, inputs).lower(lowering_platforms=("tpu",))
        return _counted(lowered)
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    # XLA counts for a CPU alone; of arrays elsewhere it is shown the shapes.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, examples, inputs))
    with jax.default_device(host):
        return _counted(jax.jit(call).trace(*shapes).lower(lowering_platforms=("tpu",)))


def _counted(lowered: jax.stages.Lowered) -> float | None:
    return float((lowered.cost_analysis() or {}).get("flops", 0.0)) or None


def make_train_call(step: TrainStep, preprocessing: Preprocessing) -> TrainCall:
    """Several steps in one call: `state, examples, inputs [k, b] -> state, losses [k]`.

    One step stays outside `lax.scan`, because XLA's CPU convolutions are many times slower inside it.
    """

    def call(state: TrainState, examples: Resident | None, inputs: Inputs) -> tuple[TrainState, jax.Array]:
        def one(state: TrainState, inputs: Inputs) -> tuple[TrainState, jax.Array]:
            state, metrics = step(state, Batch(*gather(examples, inputs, preprocessing)))
            return state, metrics["loss"]

        if len(jax.tree.leaves(inputs)[0]) == 1:
            state, loss = one(state, jax.tree.map(lambda leaf: leaf[0], inputs))
            return state, loss[None]
        return jax.lax.scan(one, state, inputs)

    return call


def make_count_call(network: nn.Module, preprocessing: Preprocessing) -> Callable[..., dict[str, jax.Array]]:
    """`state, examples, inputs [b], mask [b] -> {"top1", "top5", "loss"}`, sums."""
    count = make_count(network)

    def call(state: TrainState, examples: Resident | None, inputs: Inputs, mask: jax.Array) -> dict[str, jax.Array]:
        return count(state, Batch(*gather(examples, inputs, preprocessing)), mask)

    return call


def make_predict_call(network: nn.Module, preprocessing: Preprocessing) -> Callable[..., jax.Array]:
    """`state, examples, inputs [b] -> probabilities [b, C]`."""

    def call(state: TrainState, examples: Resident | None, inputs: Inputs) -> jax.Array:
        images, _ = gather(examples, inputs, preprocessing)
        return jax.nn.softmax(apply(network, state, images))

    return call


def make_statistics_call(network: nn.Module, preprocessing: Preprocessing) -> Callable[..., Any]:
    """`batch_stats, state, examples, inputs [b] -> batch_stats` after one batch in training mode."""

    def call(batch_stats: Any, state: TrainState, examples: Resident | None, inputs: Inputs) -> Any:
        images, _ = gather(examples, inputs, preprocessing)
        variables = {"params": state.params, "batch_stats": batch_stats}
        _, updated = network.apply(variables, images, train=True, mutable=["batch_stats"])  # pyright: ignore
        return jax.tree.map(jnp.asarray, updated["batch_stats"])

    return call


_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class Compiled(NamedTuple):
    """A compiled training call and what it took."""

    call: Callable[[TrainState, Resident | None, Inputs], tuple[TrainState, jax.Array]]
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
    """The training call of `CompiledFunctions`, jitted: `state, examples, inputs [k, b] -> state, losses [k]`."""
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


def compile_call(function: Any, state: TrainState, examples: Resident | None, inputs: Any) -> Compiled:
    """Compiles a jitted training call for a feed's abstract call [k, b]."""
    hits: list[str] = []

    def listen(event: str, **_: str | int) -> None:
        hits.extend([event] if event == _CACHE_HIT else [])

    jax.monitoring.register_event_listener(listen)
    started = time.perf_counter()
    try:
        call = function.lower(state, examples, inputs).compile()
    finally:
        jax.monitoring.unregister_event_listener(listen)
    seconds, memory = time.perf_counter() - started, call.memory_analysis()
    # The state that comes out lies where the state that went in lay.
    new = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(call, seconds, bool(hits), new, new + memory.argument_size_in_bytes)
