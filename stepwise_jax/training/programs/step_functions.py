"""The functions that run on the devices, and the cost of the training call before it runs."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from stepwise_jax.data.batches import Inputs, ResidentSplit, gather_batch, gather_images, gather_labels
from stepwise_jax.functional.augmentation import Augmentation
from stepwise_jax.functional.metrics import Metric, eval_logits, label_ranks, make_eval_step
from stepwise_jax.functional.preprocessing import Preprocessing, normalise, resize
from stepwise_jax.functional.recipe import Recipe
from stepwise_jax.functional.state import TrainState, make_initializer
from stepwise_jax.functional.train_step import (
    Batch,
    Statistics,
    TrainStep,
    make_gradient,
    make_train_step,
    step_key,
)
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime.sharding import on_mesh, replicated, split_along
from stepwise_jax.runtime.xla_options import compiler_options
from stepwise_jax.workdir.predictions import TOP_CLASSES, Ranking

TrainCall = Callable[[TrainState, ResidentSplit | None, Inputs], tuple[TrainState, jax.Array]]


def count_flops(
    call: Any, state: TrainState, examples: ResidentSplit | None, inputs: Any, *, traced: Any = None
) -> float | None:
    """Count the floating-point operations of an abstract call [1, b]; None if XLA does not count them.

    They are counted in the graph for a TPU, before XLA rewrites it: it has each product as the network defines it,
    without the padding with zeros in the graph for a GPU. In the graph for a CPU, and inside the library calls of a
    compiled graph, XLA does not see all products.

    Args:
      call: the training call, not jitted.
      state: arrays or their shapes, like the next two arguments.
      examples: the split on the device, unless it is streamed.
      inputs: the inputs of the call.
      traced: the jitted call, if it has been traced on one device already.
    """
    if jax.default_backend() == "cpu":
        lowered = (traced or jax.jit(call)).trace(state, examples, inputs).lower(lowering_platforms=("tpu",))
        return _counted(lowered)
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    # XLA counts on a CPU only, so arrays on other devices are replaced by their shapes.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, examples, inputs))
    with jax.default_device(host):
        return _counted(jax.jit(call).trace(*shapes).lower(lowering_platforms=("tpu",)))


def _counted(lowered: jax.stages.Lowered) -> float | None:
    return float((lowered.cost_analysis() or {}).get("flops", 0.0)) or None


class StepOptions(NamedTuple):
    """What makes the program of a stage another one, beside its batch size."""

    image_size: int | None = None
    """Height and width of the images in pixels; None for that of the preprocessing."""
    microbatches: int = 1


def step_options(stage: Stage) -> StepOptions:
    """Return the options of a stage's program."""
    return StepOptions(stage.image_size, stage.microbatches)


def make_stage_call(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    preprocessing: Preprocessing,
    recipe: Recipe,
    options: StepOptions,
) -> TrainCall:
    """Return the training call of a stage: `state, examples, inputs [k, b] -> state, losses [k]`."""
    step = make_train_step(
        network, optimizer, loss=recipe.loss, ema_decay=recipe.ema_decay, microbatches=options.microbatches
    )
    return make_train_call(step, resized(preprocessing, options), recipe.augment)


def resized(preprocessing: Preprocessing, options: StepOptions) -> Preprocessing:
    """Return the preprocessing with the image size of a stage."""
    return preprocessing._replace(image_size=options.image_size or preprocessing.image_size)


def make_train_call(step: TrainStep, preprocessing: Preprocessing, augment: Augmentation | None = None) -> TrainCall:
    """Return a function of several steps: `state, examples, inputs [k, b] -> state, losses [k]`.

    A single step runs outside `lax.scan`, because XLA's CPU convolutions are many times slower inside it.
    """
    load = _make_load(preprocessing, augment)

    def call(state: TrainState, examples: ResidentSplit | None, inputs: Inputs) -> tuple[TrainState, jax.Array]:
        def one(state: TrainState, inputs: Inputs) -> tuple[TrainState, jax.Array]:
            state, metrics = step(state, load(state, examples, inputs))
            return state, metrics["loss"]

        if len(jax.tree.leaves(inputs)[0]) == 1:
            state, loss = one(state, jax.tree.map(lambda leaf: leaf[0], inputs))
            return state, loss[None]
        return jax.lax.scan(one, state, inputs)

    return call


def _make_load(
    preprocessing: Preprocessing, augment: Augmentation | None
) -> Callable[[TrainState, ResidentSplit | None, Inputs], Batch]:
    """Return the function of a step's input: `state, examples, inputs [b] -> batch`."""

    def load(state: TrainState, examples: ResidentSplit | None, inputs: Inputs) -> Batch:
        if augment is None:
            return Batch(*gather_batch(examples, inputs, preprocessing))
        images, labels = gather_images(examples, inputs), gather_labels(examples, inputs)
        images = resize(images, preprocessing.image_size)
        colours = jnp.broadcast_to(images, (*images.shape[:3], 3))
        images, targets = augment(step_key(state, "augmentation"), colours, labels)  # pyright: ignore
        return Batch(normalise(images, preprocessing), targets)

    return load


def make_gradient_call(
    network: nn.Module, preprocessing: Preprocessing, recipe: Recipe, statistics: Statistics, microbatches: int
) -> Callable[..., tuple[Any, jax.Array]]:
    """Return a function `total, number, state, examples, inputs [b] -> total, square`.

    It adds the gradient of a batch to `total`, and returns its squared norm. With the statistics of the batch, the
    gradient is that of a training step, augmentation and dropout included; `number`, from 0, makes their random numbers
    those of another step.
    """
    compute = make_gradient(network, loss=recipe.loss, statistics=statistics, microbatches=microbatches)
    load = _make_load(preprocessing, recipe.augment if statistics == "batch" else None)

    def call(
        total: Any, number: jax.Array, state: TrainState, examples: ResidentSplit | None, inputs: Inputs
    ) -> tuple[Any, jax.Array]:
        state = state._replace(step=state.step + number)
        _, _, gradients = compute(state, load(state, examples, inputs))
        return jax.tree.map(jnp.add, total, gradients), optax.tree.norm(gradients, squared=True)

    return call


def make_evaluate_call(
    network: nn.Module, preprocessing: Preprocessing, metrics: Mapping[str, Metric]
) -> Callable[..., dict[str, jax.Array]]:
    """Return a function `state, examples, inputs [b], mask [b] -> sums`, one for each metric."""
    evaluate = make_eval_step(network, metrics)

    def call(
        state: TrainState, examples: ResidentSplit | None, inputs: Inputs, mask: jax.Array
    ) -> dict[str, jax.Array]:
        return evaluate(state, Batch(*gather_batch(examples, inputs, preprocessing)), mask)

    return call


def make_predict_call(network: nn.Module, preprocessing: Preprocessing) -> Callable[..., Ranking]:
    """Return a function `state, examples, inputs [b] -> ranking`: all probabilities [b, C] stay on the device."""

    def call(state: TrainState, examples: ResidentSplit | None, inputs: Inputs) -> Ranking:
        images, labels = gather_batch(examples, inputs, preprocessing)
        return rank_classes(eval_logits(network, state, images), labels)

    return call


def rank_classes(logits: jax.Array, labels: jax.Array) -> Ranking:
    """Rank the classes of logits [b, C]; of equal ones the first is the more probable, as in `label_ranks`."""
    # To `top_k`, -0 is below 0.
    logits = jnp.where(logits == 0, jnp.zeros_like(logits), logits)
    probabilities = jax.nn.softmax(logits)
    _, classes = jax.lax.top_k(logits, min(TOP_CLASSES, logits.shape[1]))
    best, own = (jnp.take_along_axis(probabilities, each, axis=1) for each in (classes, labels[:, None]))
    return Ranking(classes, best, label_ranks(logits, labels), own[:, 0])  # pyright: ignore


def make_batch_stats_call(network: nn.Module, preprocessing: Preprocessing) -> Callable[..., Any]:
    """Return a function `batch_stats, state, examples, inputs [b] -> batch_stats`: one batch in training mode."""

    def call(batch_stats: Any, state: TrainState, examples: ResidentSplit | None, inputs: Inputs) -> Any:
        images, _ = gather_batch(examples, inputs, preprocessing)
        variables, key = {"params": state.params, "batch_stats": batch_stats}, step_key(state, "network")
        rngs = None if key is None else {"params": key}
        _, updated = network.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)  # pyright: ignore
        return jax.tree.map(jnp.asarray, updated.get("batch_stats", batch_stats))

    return call


_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class CompiledTrainCall(NamedTuple):
    """A compiled training call, with its compile time and memory."""

    call: Callable[[TrainState, ResidentSplit | None, Inputs], tuple[TrainState, jax.Array]]
    seconds: float
    """Time to trace and compile."""
    cached: bool
    """Whether the call came from the persistent compilation cache."""
    new_bytes: int
    """Bytes on a device without the arguments."""
    bytes: int
    """Bytes on a device, arguments included."""


def jit_train_call(
    network: nn.Module,
    optimizer: optax.GradientTransformation,
    preprocessing: Preprocessing,
    mesh: Mesh,
    *,
    recipe: Recipe | None = None,
    options: StepOptions | None = None,
    deterministic: bool = False,
) -> Any:
    """Jit the training call of a stage: `state, examples, inputs [k, b] -> state, losses [k]`; `state` is donated."""
    call = make_stage_call(network, optimizer, preprocessing, recipe or Recipe(), options or StepOptions())
    whole = replicated(mesh)
    return jax.jit(
        on_mesh(mesh, call),
        in_shardings=(whole, None, split_along(mesh, 1)),
        out_shardings=whole,
        donate_argnames="state",
        compiler_options=compiler_options(deterministic, jax.default_backend()),
    )


def random_state(
    network: nn.Module, optimizer: optax.GradientTransformation, image_size: int, mesh: Mesh
) -> TrainState:
    """Create a state with random weights on every device."""
    # Unoptimised, the random generators take less time than LLVM takes to optimise them.
    unoptimised = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    create = jax.jit(make_initializer(network, optimizer, image_size), compiler_options=unoptimised)
    return jax.device_put(create(jax.random.key(0)), replicated(mesh))


def compile_train_call(
    function: Any, state: TrainState, examples: ResidentSplit | None, inputs: Any
) -> CompiledTrainCall:
    """Compile a jitted training call for abstract stacked batches [k, b]."""
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
    # The output state reuses the memory of the input state.
    new = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return CompiledTrainCall(call, seconds, bool(hits), new, new + memory.argument_size_in_bytes)
