"""What runs on the device: the train step, evaluation and statistics joined with the data path, compiled once a shape.

Everything is compiled ahead of its first call, so that compiling is timed apart from training, and a call with any
other shape, dtype or placement is an error instead of a silent new compilation. What later stages need is compiled in
the background while the present one trains.
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

from stepwise_jax.data.batches import Inputs, Pixels, Resident, evaluation_batch
from stepwise_jax.errors import first_line
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.functional.state import TrainState
from stepwise_jax.functional.train_step import make_train_step
from stepwise_jax.runtime.sharding import on_mesh, place, replicated, split_along
from stepwise_jax.runtime.threads import BackgroundWorker
from stepwise_jax.runtime.xla_options import compiler_options
from stepwise_jax.training.step_functions import (
    count_flops,
    make_count_call,
    make_predict_call,
    make_statistics_call,
    make_train_call,
)
from stepwise_jax.training.timing import Timer

Key = tuple[Any, ...]
"""A program's name and the shape of what it works on."""


class CompiledFunctions:
    """The compiled functions of one run, each made when it is first needed."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: optax.GradientTransformation,
        preprocessing: Preprocessing,
        mesh: Mesh,
        clock: Timer,
        report: Callable[[str], None],
        *,
        deterministic: bool = False,
    ):
        self._mesh, self._clock, self._report = mesh, clock, report
        self._compiled: dict[Key, Any] = {}
        self._ahead: dict[Key, Future[tuple[Any, float]]] = {}
        self._background = BackgroundWorker("compile")
        # A split keeps the placement that it has: on every device, spread over them, or nowhere.
        whole, rows, call_rows = replicated(mesh), split_along(mesh, 0), split_along(mesh, 1)
        self._call = make_train_call(make_train_step(network, optimizer), preprocessing)
        train = on_mesh(mesh, self._call)
        count = on_mesh(mesh, make_count_call(network, preprocessing))
        predict = on_mesh(mesh, make_predict_call(network, preprocessing))
        statistics = on_mesh(mesh, make_statistics_call(network, preprocessing))
        jit = partial(jax.jit, compiler_options=compiler_options(deterministic, jax.default_backend()))
        self._train = jit(train, in_shardings=(whole, None, call_rows), out_shardings=whole, donate_argnames="state")
        self._count = jit(count, in_shardings=(whole, None, rows, rows), out_shardings=whole)
        self._predict = jit(predict, in_shardings=(whole, None, rows), out_shardings=whole)
        self._statistics = jit(statistics, in_shardings=(whole, whole, None, rows), out_shardings=whole)

    def train(self, state: TrainState, examples: Resident | None, inputs: Inputs) -> tuple[TrainState, jax.Array]:
        """Steps on a feed's call [k, b]; takes over the memory of `state`. Returns losses [k]."""
        return self._program("train", self._train, state, examples, inputs)(state, examples, inputs)

    def count(
        self, state: TrainState, examples: Resident | None, inputs: Inputs, mask: np.ndarray
    ) -> dict[str, jax.Array]:
        """Right answers and loss, summed over the examples of a batch [b] that `mask` [b] keeps."""
        args = (state, examples, inputs, place(mask, split_along(self._mesh, 0)))
        return self._program("evaluate", self._count, *args)(*args)

    def predict(self, state: TrainState, examples: Resident | None, inputs: Inputs) -> jax.Array:
        """Probabilities float32 [b, C]."""
        return self._program("predict", self._predict, state, examples, inputs)(state, examples, inputs)

    def statistics(self, batch_stats: Any, state: TrainState, examples: Resident | None, inputs: Inputs) -> Any:
        """Batch statistics after one batch [b] in training mode, starting from `batch_stats`."""
        args = (batch_stats, state, examples, inputs)
        return self._program("statistics", self._statistics, *args)(*args)

    def prepare_train(self, state: TrainState, examples: Resident | None, inputs: Any) -> None:
        """Compiles the training call for a feed's call [k, b], abstract or not, if it is not compiled yet."""
        self._program("train", self._train, state, examples, inputs)

    def prepare_train_ahead(self, state: TrainState, examples: Resident | None, inputs: Any) -> None:
        """As `prepare_train`, in the background."""
        self._begin("train", self._train, state, examples, inputs)

    def prepare_statistics_ahead(self, state: TrainState, examples: Resident | None, inputs: Any) -> None:
        """Compiles `statistics` for a feed's abstract batch [b], in the background."""
        self._begin("statistics", self._statistics, state.batch_stats, state, examples, inputs)

    def prepare_scores_ahead(self, state: TrainState, examples: Resident | None, inputs: Any) -> None:
        """Compiles `count` for a feed's abstract batch [b] of test images, in the background."""
        mask = jax.ShapeDtypeStruct(_shape(inputs), np.bool_, sharding=split_along(self._mesh, 0))
        self._begin("evaluate", self._count, state, examples, inputs, mask)

    def prepare_predictions_ahead(self, state: TrainState, examples: Resident | None, inputs: Any) -> None:
        """Compiles `predict` for a feed's abstract batch [b] of test images, in the background."""
        self._begin("predict", self._predict, state, examples, inputs)

    def close(self) -> None:
        """Begins no more compiling in the background."""
        self._background.close()

    def evaluation_batch(self, wanted: int, examples: int) -> int:
        """The batch to evaluate in: no larger than the split, and a whole share for each device."""
        devices = self._mesh.size
        return -(-evaluation_batch(wanted, examples) // devices) * devices

    def flops_per_step(self, state: TrainState, examples: Resident | None, inputs: Any) -> float:
        """Floating-point operations of an abstract call [1, b], or 0 where XLA does not count them."""
        # What one device trains with has been traced; for several, a part of it may be one device's share already.
        traced = self._train if self._mesh.size == 1 else None
        return count_flops(self._call, state, examples, inputs, traced=traced) or 0.0

    def _program(self, name: str, function: Any, *args: Any) -> Any:
        key = (name, *_shape(args[-1]))
        if key not in self._compiled:
            with self._clock.measure("compile"):
                self._compiled[key] = self._finish(key) or self._compile(key, function, args)
        return self._compiled[key]

    def _compile(self, key: Key, function: Any, args: Any) -> Any:
        compiled, seconds = _timed(function, args)
        self._report(f"compiled {_told(key)} in {seconds:.1f} s")
        return compiled

    def _begin(self, name: str, function: Any, *args: Any) -> None:
        key = (name, *_shape(args[-1]))
        if key not in self._compiled and key not in self._ahead:
            # Of the state no more than its shapes: the training that goes on takes over its memory.
            shapes = jax.tree.map(_abstract, args)
            precision, wide = jax.config.jax_default_matmul_precision, jax.config.jax_enable_x64  # pyright: ignore
            self._ahead[key] = self._background.submit(lambda: _timed_under(precision, wide, function, shapes))

    def _finish(self, key: Key) -> Any | None:
        """What was compiled in the background, waited for if need be; None where that is not begun, or failed."""
        future, waited = self._ahead.pop(key, None), time.perf_counter()
        if future is None or future.cancel():
            return None
        try:
            compiled, seconds = future.result()
        except Exception as error:
            self._report(f"compiling {_told(key)} in the background failed ({first_line(error)}): again, without")
            return None
        waited = time.perf_counter() - waited
        self._report(f"compiled {_told(key)} in {seconds:.1f} s in the background, waited for {waited:.1f} s")
        return compiled


def _shape(inputs: Any) -> tuple[int, ...]:
    return inputs.labels.shape if isinstance(inputs, Pixels) else inputs.shape


def _told(key: Key) -> str:
    return f"{key[0]} for {' x '.join(map(str, key[1:]))} examples"


def _timed(function: Any, args: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    return function.lower(*args).compile(), time.perf_counter() - started


def _timed_under(precision: Any, wide: bool, function: Any, args: Any) -> tuple[Any, float]:
    # A thread of its own does not see what the caller's `with` has set.
    with jax.default_matmul_precision(precision), jax.enable_x64(wide):
        return _timed(function, args)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=leaf.sharding, weak_type=getattr(leaf, "weak_type", False)
    )
