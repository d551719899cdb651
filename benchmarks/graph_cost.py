"""Count what the kernels of a JAX function must compute and move at least, from its graph; nothing is executed.

The graph is the one for accelerators (the default branch where a function differs by platform), with every call
inlined. The operations of its matrix products and convolutions are counted, without positions where a kernel lies over
padding or over the holes of a dilation, as XLA counts them. An elementwise operation costs only its reads and writes.

Bytes: an array is *stored* if it is an input or an output of the function, if a product, a reduction, a pooling or a
gather makes it, if a product reads it, or if it is the sum of gradients of two branches. Everything between is fused
into the kernels that need it: a kernel reads each stored array that it depends on once (of a slice, the slice), and
writes its stored outputs once. Two successive reductions of the same arrays are one kernel. Reshaping, transposing and
reversing move nothing. Nothing stays in a cache from one kernel to the next.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

PRODUCTS = ("conv_general_dilated", "dot_general")
_REDUCTIONS = ("reduce", "reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax")
_MAKERS = (
    *PRODUCTS,
    *_REDUCTIONS,
    "reduce_window_sum",
    "reduce_window_max",
    "select_and_scatter_add",
    "gather",
    "scatter-add",
)
_MEETINGS = ("add_any",)
_VIEWS = ("reshape", "transpose", "rev", "squeeze", "expand_dims", "copy", "optimization_barrier", "stop_gradient")
_SMALL = 1 << 16
"""Elements below which an array (a statistic, a rate) is ignored in deciding whether two kernels share their input."""


class Kernel(NamedTuple):
    """One kernel's work."""

    name: str
    flops: float
    """Of products."""
    bytes: float
    """Read and written."""


@dataclass(frozen=True)
class _Operation:
    name: str
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Graph:
    """A function with all calls inlined: arrays by number, and the operations on them in order."""

    def __init__(self, closed: ClosedJaxpr):
        self.arrays: list[Any] = []
        self.operations: list[_Operation] = []
        self.literals: set[int] = set()
        """Constants in the program itself."""
        self.inputs = [self._add(var.aval) for var in closed.jaxpr.invars]
        self.outputs = self._inline(closed, self.inputs)
        self.operations = self._needed()

    def _needed(self) -> list[_Operation]:
        """The operations that an output depends on: compilers remove all others."""
        needed, kept = set(self.outputs), []
        for operation in reversed(self.operations):
            if needed & set(operation.outputs):
                needed.update(operation.inputs)
                kept.append(operation)
        return kept[::-1]

    def _add(self, aval: Any) -> int:
        self.arrays.append(aval)
        return len(self.arrays) - 1

    def _inline(self, closed: ClosedJaxpr, inputs: Sequence[int]) -> list[int]:
        jaxpr = closed.jaxpr
        known = dict(zip(jaxpr.invars, inputs, strict=True))
        known |= {var: self._add(var.aval) for var in jaxpr.constvars}

        def number(atom: Any) -> int:
            if not isinstance(atom, Literal):
                return known[atom]
            self.literals.add(self._add(atom.aval))
            return len(self.arrays) - 1

        for equation in jaxpr.eqns:
            taken = [number(atom) for atom in equation.invars]
            inner, skipped = _called(equation)
            if inner is None:
                made = [self._add(var.aval) for var in equation.outvars]
                self.operations.append(_Operation(equation.primitive.name, equation.params, (*taken,), (*made,)))
            else:
                made = self._inline(inner, taken[skipped:])
            known |= dict(zip(equation.outvars, made, strict=True))
        return [number(atom) for atom in jaxpr.outvars]


def _called(equation: Any) -> tuple[ClosedJaxpr | None, int]:
    """The function that an equation calls, if any, and the number of arguments that only select it."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        # The last branch without a platform is the default.
        platforms = params.get("branches_platforms")
        if not platforms or platforms[-1] is not None:
            raise ValueError("the cost of a branch that depends on data is unknown")
        return params["branches"][-1], 1
    if name in _REDUCTIONS:
        # The function of a reduction combines two values; it is no part of the graph.
        return None, 0
    if name in ("scan", "while"):
        raise ValueError(f"the number of steps of a {name} is unknown: count the function without it")
    inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
    return (inner if isinstance(inner, ClosedJaxpr) else None), 0


def kernels(function: Any, *arguments: Any) -> list[Kernel]:
    """The kernels of a function of abstract arguments, in order.

    Raises:
      ValueError: for a function with loops or branches.
    """
    return _Costs(_Graph(jax.make_jaxpr(function)(*arguments))).kernels


class _Costs:
    """Walks through a graph once, and records its kernels."""

    def __init__(self, graph: _Graph):
        self._arrays, self._literals = graph.arrays, graph.literals
        self._makers = {output: operation for operation in graph.operations for output in operation.outputs}
        self._stored = {each for each in range(len(graph.arrays)) if each not in self._makers}
        self._last_reduction: tuple[frozenset[int], tuple[int, ...]] = frozenset(), ()
        self.kernels: list[Kernel] = []
        for operation in graph.operations:
            self._visit(operation)
        for output in graph.outputs:
            self._store(output)

    def _visit(self, operation: _Operation) -> None:
        if operation.name in PRODUCTS:
            for array in operation.inputs:
                self._store(array)
            read = {self._through_views(array): self._size(array) for array in operation.inputs}
            flops = _FLOPS[operation.name](operation, self._arrays)
            self._record(operation.name, flops, read, operation.outputs)
        elif operation.name in _REDUCTIONS:
            self._reduce(operation)
        elif operation.name in _MAKERS:
            # A pooling reads all of its images; a gather or its gradient as many rows as it moves.
            pooling = operation.name.startswith("reduce_window") or operation.name == "select_and_scatter_add"
            read = self._sources(operation.inputs, () if pooling else operation.outputs)
            self._record(operation.name, 0, read, operation.outputs)
        elif operation.name in _MEETINGS:
            self._store(operation.outputs[0])

    def _reduce(self, operation: _Operation) -> None:
        read = self._sources(operation.inputs)
        large = frozenset(array for array in read if self._size(array) > _SMALL)
        before, made = self._last_reduction
        together = bool(large) and (large <= before or before <= large) and not read.keys() & set(made)
        if together and before:
            read = {array: size for array, size in read.items() if array not in before}
        self._last_reduction = (large | before, (*made, *operation.outputs)) if together else (large, operation.outputs)
        self._record(operation.name, 0, read, operation.outputs)

    def _store(self, array: int) -> None:
        """Stores an array in memory, by a kernel that computes it if none has yet."""
        array = self._through_views(array)
        if array not in self._stored:
            self._record("elementwise", 0, self._sources([array]), (array,))

    def _record(self, name: str, flops: float, read: dict[int, int], written: Sequence[int]) -> None:
        moved = sum(size * self._item(array) for array, size in read.items())
        moved += sum(self._size(array) * self._item(array) for array in written)
        self._stored.update(written)
        self.kernels.append(Kernel(name, flops, moved))

    def _through_views(self, array: int) -> int:
        while array not in self._stored and self._makers[array].name in _VIEWS:
            array = self._makers[array].inputs[0]
        return array

    def _sources(self, arrays: Sequence[int], outputs: Sequence[int] = ()) -> dict[int, int]:
        """The stored arrays that others are computed from, with the number of elements needed of each."""
        # A gather reads no more of its source than its result has.
        bound = max((self._size(each) for each in outputs), default=0) or math.inf
        ahead = [(each, int(min(self._size(each), bound))) for each in arrays]
        needed: dict[int, int] = {}
        seen: dict[int, int] = {}
        while ahead:
            array, size = ahead.pop()
            size = min(size, self._size(array))
            if seen.get(array, -1) >= size:
                continue
            seen[array] = size
            if array in self._literals:
                continue
            if array in self._stored:
                needed[array] = size
            else:
                ahead += [(each, min(size, self._size(each))) for each in self._makers[array].inputs]
        return needed

    def _size(self, array: int) -> int:
        return math.prod(self._arrays[array].shape)

    def _item(self, array: int) -> int:
        dtype = self._arrays[array].dtype
        return np.dtype(dtype).itemsize if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended) else 8


def _convolution_flops(operation: _Operation, arrays: Sequence[Any]) -> float:
    params, (image, kernel) = operation.params, (arrays[each].shape for each in operation.inputs)
    out, numbers = arrays[operation.outputs[0]].shape, params["dimension_numbers"]
    pairs = 1
    spatial = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    for place, (of_image, of_kernel, of_out) in enumerate(spatial):
        options = (params[name][place] for name in ("window_strides", "padding", "lhs_dilation", "rhs_dilation"))
        pairs *= _pairs(image[of_image], kernel[of_kernel], out[of_out], *options)
    others = out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * kernel[numbers.rhs_spec[1]]
    return 2.0 * pairs * others


def _pairs(image: int, kernel: int, out: int, stride: int, padding: tuple[int, int], holes: int, spread: int) -> int:
    """How often, along one side, a tap of the kernel lies over a pixel of the image."""
    places = np.arange(out)[:, None] * stride + np.arange(kernel)[None] * spread - padding[0]
    return int(((places >= 0) & (places <= (image - 1) * holes) & (places % holes == 0)).sum())


def _matrix_flops(operation: _Operation, arrays: Sequence[Any]) -> float:
    (contracted, _), _ = operation.params["dimension_numbers"]
    shape = arrays[operation.inputs[0]].shape
    return 2.0 * math.prod(arrays[operation.outputs[0]].shape) * math.prod(shape[each] for each in contracted)


_FLOPS = {"conv_general_dilated": _convolution_flops, "dot_general": _matrix_flops}
