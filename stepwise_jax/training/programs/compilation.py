"""The functions that run on the devices, with their input from the loaders, compiled once for each shape.

Everything is compiled before its first call. So compilation is timed apart from training, and a call with any other
shape, dtype or placement is an error instead of a silent recompilation. The functions of later stages compile in the
background while the current stage trains.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from stepwise_jax.data.batches import ImageBatch, Inputs, ResidentSplit, evaluation_batch_size
from stepwise_jax.errors import first_line
from stepwise_jax.functional.metrics import make_metrics
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.functional.recipe import Recipe
from stepwise_jax.functional.state import TrainState
from stepwise_jax.functional.train_step import Statistics
from stepwise_jax.runtime.sharding import on_mesh, place, replicated, split_along
from stepwise_jax.runtime.threads import BackgroundWorker
from stepwise_jax.runtime.xla_options import compiler_options
from stepwise_jax.training.measurements.timing import Timer
from stepwise_jax.training.programs.step_functions import (
    StepOptions,
    count_flops,
    jit_train_call,
    make_batch_stats_call,
    make_evaluate_call,
    make_gradient_call,
    make_predict_call,
    make_stage_call,
    resized,
)
from stepwise_jax.workdir.predictions import Ranking

Key = tuple[Any, ...]
"""A function's name, its options, and the shape of its inputs."""

PLAIN = StepOptions()


class CompiledFunctions:
    """The compiled functions of one run, each compiled when it is first needed."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: optax.GradientTransformation,
        preprocessing: Preprocessing,
        mesh: Mesh,
        timer: Timer,
        report: Callable[[str], None],
        *,
        recipe: Recipe | None = None,
        num_classes: int = 1000,
        deterministic: bool = False,
    ):
        recipe = recipe or Recipe()
        self.metrics = make_metrics(num_classes, recipe.loss, recipe.metrics)
        self._make_call = partial(make_stage_call, network, optimizer, preprocessing, recipe)
        self._jit_train = partial(
            jit_train_call, network, optimizer, preprocessing, mesh, recipe=recipe, deterministic=deterministic
        )
        self._train: dict[StepOptions, Any] = {}
        self._network, self._preprocessing, self._recipe = network, preprocessing, recipe
        self._mesh, self._timer, self._report = mesh, timer, report
        self._compiled: dict[Key, Any] = {}
        self._ahead: dict[Key, Future[tuple[Any, float]]] = {}
        self._background = BackgroundWorker("compile")
        # A split keeps its placement: replicated, sharded, or not on the devices at all.
        whole, rows = replicated(mesh), split_along(mesh, 0)
        evaluate = on_mesh(mesh, make_evaluate_call(network, preprocessing, self.metrics))
        predict = on_mesh(mesh, make_predict_call(network, preprocessing))
        jit = self._jit = partial(jax.jit, compiler_options=compiler_options(deterministic, jax.default_backend()))
        self._evaluate = jit(evaluate, in_shardings=(whole, None, rows, rows), out_shardings=whole)
        self._predict = jit(predict, in_shardings=(whole, None, rows), out_shardings=whole)
        self._update_batch_stats: dict[StepOptions, Any] = {}
        self._add_gradient: dict[tuple[Statistics, StepOptions], Any] = {}

    def _train_function(self, options: StepOptions) -> Any:
        """The jitted training call of stages with these options, always the same."""
        if options not in self._train:
            self._train[options] = self._jit_train(options=options)
        return self._train[options]

    def _batch_stats_function(self, options: StepOptions) -> Any:
        if options not in self._update_batch_stats:
            call = make_batch_stats_call(self._network, resized(self._preprocessing, options))
            whole, rows = replicated(self._mesh), split_along(self._mesh, 0)
            jitted = self._jit(on_mesh(self._mesh, call), in_shardings=(whole, whole, None, rows), out_shardings=whole)
            self._update_batch_stats[options] = jitted
        return self._update_batch_stats[options]

    def _gradient_function(self, statistics: Statistics, options: StepOptions) -> Any:
        if (statistics, options) not in self._add_gradient:
            preprocessing = resized(self._preprocessing, options)
            call = make_gradient_call(self._network, preprocessing, self._recipe, statistics, options.microbatches)
            whole, rows = replicated(self._mesh), split_along(self._mesh, 0)
            shardings = (whole, whole, whole, None, rows)
            jitted = self._jit(on_mesh(self._mesh, call), in_shardings=shardings, out_shardings=whole)
            self._add_gradient[statistics, options] = jitted
        return self._add_gradient[statistics, options]

    def train(
        self, state: TrainState, examples: ResidentSplit | None, inputs: Inputs, options: StepOptions = PLAIN
    ) -> tuple[TrainState, jax.Array]:
        """Train on a loader's stacked batches [k, b]; `state` is donated. Returns the new state and losses [k]."""
        function = self._train_function(options)
        return self._get_compiled("train", function, state, examples, inputs, options=options)(state, examples, inputs)

    def evaluate(
        self, state: TrainState, examples: ResidentSplit | None, inputs: Inputs, mask: np.ndarray
    ) -> dict[str, jax.Array]:
        """Correct predictions and loss, summed over the examples of a batch [b] that `mask` [b] selects."""
        args = (state, examples, inputs, place(mask, split_along(self._mesh, 0)))
        return self._get_compiled("evaluate", self._evaluate, *args)(*args)

    def predict(self, state: TrainState, examples: ResidentSplit | None, inputs: Inputs) -> Ranking:
        """The most probable classes of a batch [b], and the rank of its correct classes; arrays on the devices."""
        return self._get_compiled("predict", self._predict, state, examples, inputs)(state, examples, inputs)

    def update_batch_stats(
        self,
        batch_stats: Any,
        state: TrainState,
        examples: ResidentSplit | None,
        inputs: Inputs,
        options: StepOptions = PLAIN,
    ) -> Any:
        """Batch statistics after one batch [b] in training mode, starting from `batch_stats`."""
        args, function = (batch_stats, state, examples, inputs), self._batch_stats_function(options)
        return self._get_compiled("statistics", function, *args, options=options)(*args)

    def add_gradient(
        self,
        total: Any,
        number: int,
        state: TrainState,
        examples: ResidentSplit | None,
        inputs: Inputs,
        statistics: Statistics,
        options: StepOptions = PLAIN,
    ) -> tuple[Any, jax.Array]:
        """Sum `total` of gradients with that of one batch [b], and its squared norm; see `make_gradient_call`."""
        placed = place(np.int32(number), replicated(self._mesh))
        args, function = (total, placed, state, examples, inputs), self._gradient_function(statistics, options)
        return self._get_compiled(f"{statistics} gradient", function, *args, options=options)(*args)

    def compile_train(
        self, state: TrainState, examples: ResidentSplit | None, inputs: Any, options: StepOptions = PLAIN
    ) -> None:
        """Compile `train` for a loader's stacked batches [k, b], abstract or not, unless it is compiled already."""
        self._get_compiled("train", self._train_function(options), state, examples, inputs, options=options)

    def compile_train_ahead(
        self, state: TrainState, examples: ResidentSplit | None, inputs: Any, options: StepOptions = PLAIN
    ) -> None:
        """Compile `train` for abstract stacked batches [k, b] in the background."""
        self._compile_ahead("train", self._train_function(options), state, examples, inputs, options=options)

    def compile_batch_stats_ahead(
        self, state: TrainState, examples: ResidentSplit | None, inputs: Any, options: StepOptions = PLAIN
    ) -> None:
        """Compile `update_batch_stats` for an abstract batch [b] in the background."""
        args, function = (state.batch_stats, state, examples, inputs), self._batch_stats_function(options)
        self._compile_ahead("statistics", function, *args, options=options)

    def compile_gradient_ahead(
        self,
        state: TrainState,
        examples: ResidentSplit | None,
        inputs: Any,
        statistics: Statistics,
        options: StepOptions = PLAIN,
    ) -> None:
        """Compile `add_gradient` for an abstract batch [b] in the background."""
        number = jax.ShapeDtypeStruct((), np.int32, sharding=replicated(self._mesh))
        args, function = (state.params, number, state, examples, inputs), self._gradient_function(statistics, options)
        self._compile_ahead(f"{statistics} gradient", function, *args, options=options)

    def compile_evaluate_ahead(self, state: TrainState, examples: ResidentSplit | None, inputs: Any) -> None:
        """Compile `evaluate` for an abstract batch [b] of test images in the background."""
        mask = jax.ShapeDtypeStruct(_shape(inputs), np.bool_, sharding=split_along(self._mesh, 0))
        self._compile_ahead("evaluate", self._evaluate, state, examples, inputs, mask)

    def compile_predict_ahead(self, state: TrainState, examples: ResidentSplit | None, inputs: Any) -> None:
        """Compile `predict` for an abstract batch [b] of test images in the background."""
        self._compile_ahead("predict", self._predict, state, examples, inputs)

    def close(self) -> None:
        """Start no more compilations in the background."""
        self._background.close()

    def evaluation_batch_size(self, requested: int, examples: int) -> int:
        """Return the batch size of evaluation: no larger than the split, rounded up to a multiple of the devices."""
        devices = self._mesh.size
        return -(-evaluation_batch_size(requested, examples) // devices) * devices

    def flops_per_step(
        self, state: TrainState, examples: ResidentSplit | None, inputs: Any, options: StepOptions = PLAIN
    ) -> float:
        """Return the floating-point operations of an abstract call [1, b], or 0 if XLA does not count them."""
        # For one device the traced function is reused. For several, parts of it may already be one device's share.
        traced = self._train_function(options) if self._mesh.size == 1 else None
        return count_flops(self._make_call(options), state, examples, inputs, traced=traced) or 0.0

    def _get_compiled(self, name: str, function: Any, *args: Any, options: StepOptions = PLAIN) -> Any:
        key = (name, options, *_shape(args[-1]))
        if key not in self._compiled:
            with self._timer.measure("compile"):
                self._compiled[key] = self._await_background(key) or self._compile(key, function, args)
        return self._compiled[key]

    def _compile(self, key: Key, function: Any, args: Any) -> Any:
        compiled, seconds = _compile_timed(function, args)
        self._report(f"compiled {_describe_key(key)} in {seconds:.1f} s")
        return compiled

    def _compile_ahead(self, name: str, function: Any, *args: Any, options: StepOptions = PLAIN) -> None:
        key = (name, options, *_shape(args[-1]))
        if key not in self._compiled and key not in self._ahead:
            # Only the shapes of the state: training continues meanwhile, and donates its memory.
            shapes = jax.tree.map(_abstract, args)
            precision, wide = jax.config.jax_default_matmul_precision, jax.config.jax_enable_x64  # pyright: ignore
            self._ahead[key] = self._background.submit(lambda: _compile_timed_under(precision, wide, function, shapes))

    def _await_background(self, key: Key) -> Any | None:
        """Wait for a compilation in the background and return its result; None if it never started, or failed."""
        future, waited = self._ahead.pop(key, None), time.perf_counter()
        if future is None or future.cancel():
            return None
        try:
            compiled, seconds = future.result()
        except Exception as error:
            self._report(f"compiling {_describe_key(key)} in the background failed ({first_line(error)}): trying again")
            return None
        waited = time.perf_counter() - waited
        self._report(f"compiled {_describe_key(key)} in {seconds:.1f} s in the background, waited for {waited:.1f} s")
        return compiled


def _shape(inputs: Any) -> tuple[int, ...]:
    return inputs.labels.shape if isinstance(inputs, ImageBatch) else inputs.shape


def _describe_key(key: Key) -> str:
    name, options, *shape = key
    size = f" of {options.image_size} pixels" if options.image_size else ""
    parts = f" in {options.microbatches} parts" if options.microbatches > 1 else ""
    return f"{name} for {' x '.join(map(str, shape))} examples{size}{parts}"


def _compile_timed(function: Any, args: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    return function.lower(*args).compile(), time.perf_counter() - started


def _compile_timed_under(precision: Any, wide: bool, function: Any, args: Any) -> tuple[Any, float]:
    # Another thread does not see the settings of the caller's `with` statements.
    with jax.default_matmul_precision(precision), jax.enable_x64(wide):
        return _compile_timed(function, args)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=leaf.sharding, weak_type=getattr(leaf, "weak_type", False)
    )
