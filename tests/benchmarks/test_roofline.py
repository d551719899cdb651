"""Counted kernels against closed forms and XLA's own count, and what follows from them for the paper's tables."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import graph_cost
import jax
import jax.numpy as jnp
import optax
import pytest
import roofline
from graph_cost import Kernel, kernels
from jax import lax

import models
from models import layers
from models.convolution import convolve
from stepwise_jax.experiment.config_files import load_rows
from stepwise_jax.functional.state import make_initializer
from stepwise_jax.functional.train_step import Batch, make_train_step
from stepwise_jax.runtime import devices

ROOT = Path(__file__).parents[2]


def shaped(*shape: int, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def flops(counted: list[Kernel]) -> float:
    return sum(each.flops for each in counted)


def moved(counted: list[Kernel]) -> float:
    return sum(each.bytes for each in counted)


def test_a_product_reads_its_factors_and_writes_its_result():
    (product,) = kernels(lambda x, w: x @ w, shaped(30, 20), shaped(20, 10))
    assert product == Kernel("dot_general", 2 * 30 * 20 * 10, 4 * (30 * 20 + 20 * 10 + 30 * 10))


def test_what_lies_between_products_is_one_kernel():
    def function(x: Any, w: Any) -> Any:
        return jnp.exp(2 * (x @ w) + 1).T @ x

    first, between, second = kernels(function, shaped(30, 20), shaped(20, 10))
    assert [first.name, between.name, second.name] == ["dot_general", "elementwise", "dot_general"]
    assert between == Kernel("elementwise", 0, 4 * 2 * 300)
    assert second.bytes == 4 * (300 + 600 + 200)


def test_narrow_arrays_count_at_their_size_and_a_slice_as_the_slice():
    def function(x: Any) -> Any:
        return (x[:5] + 1).astype(jnp.bfloat16)

    assert kernels(function, shaped(20, 10)) == [Kernel("elementwise", 0, 4 * 50 + 2 * 50)]


def test_what_nothing_depends_on_costs_nothing():
    assert kernels(lambda x, w: (x @ w, x + 1)[1], shaped(4, 4), shaped(4, 4)) == [Kernel("elementwise", 0, 4 * 32)]


def test_loops_are_refused():
    with pytest.raises(ValueError, match="scan"):
        kernels(lambda x: lax.scan(lambda carry, _: (carry + 1, None), x, length=3)[0], shaped(2))


@pytest.mark.parametrize(
    ("stride", "groups", "size"), [(1, 1, 3), (2, 1, 3), (2, 1, 1), (1, 4, 3), (2, 4, 3), (2, 1, 7)]
)
@pytest.mark.parametrize("side", [8, 9])
def test_operations_of_convolutions_and_their_gradients_are_xlas(stride, groups, size, side):
    x, kernel = shaped(2, side, side, 8), shaped(size, size, 8 // groups, 12)

    def forward(x: Any, kernel: Any) -> Any:
        return convolve(x, kernel, stride, groups)

    def both(x: Any, kernel: Any, gradient: Any) -> Any:
        return jax.vjp(forward, x, kernel)[1](gradient)

    out = jax.eval_shape(forward, x, kernel)
    for function, arguments in ((forward, (x, kernel)), (both, (x, kernel, shaped(*out.shape)))):
        lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",))
        assert flops(kernels(function, *arguments)) == lowered.cost_analysis()["flops"]  # pyright: ignore


def test_batch_norm_between_convolutions_moves_what_it_must(monkeypatch):
    """Of n values: the statistics read them, the result is written from them, and its gradient too."""
    monkeypatch.setattr(graph_cost, "_SMALL", 100)
    norm, sides = layers.BatchNorm(), (2, 8, 8, 16)
    variables = norm.init(jax.random.key(0), jnp.zeros(sides), train=False)
    n, channels = 2 * 8 * 8 * 16, 16

    def function(x: Any, w: Any, gradient: Any) -> Any:
        def forward(y: Any) -> Any:
            return norm.apply(variables, y, train=True, mutable=["batch_stats"])[0]

        y = lax.dot_general(x, w, (((3,), (0,)), ((), ())))
        z, back = jax.vjp(forward, y)
        return z @ w, back(gradient @ w)[0] @ w

    counted = kernels(function, shaped(*sides), shaped(16, 16), shaped(*sides))
    products = [each for each in counted if each.name == "dot_general"]
    assert len(products) == 4
    # Mean and variance: n. z: n read, n written. Sums of the gradient: 2 n. Gradient of y: 2 n read, n written.
    rest = moved(counted) - moved(products)
    assert 4 * 8 * n <= rest <= 4 * (8 * n + 30 * channels)


def test_a_networks_products_are_nearly_all_that_xla_counts():
    """What is missing to XLA's count of the whole step is elementwise: norms, ReLUs, the optimiser."""
    network, optimizer = models.build("res2net50_26w_4s", num_classes=10, blocks=(1, 1, 1, 1)), optax.sgd(0.1)
    state = jax.eval_shape(make_initializer(network, optimizer, 64), jax.random.key(0))
    batch, step = Batch(shaped(8, 64, 64, 3), shaped(8, dtype=jnp.int32)), make_train_step(network, optimizer)
    lowered = jax.jit(step).trace(state, batch).lower(lowering_platforms=("tpu",))
    whole = lowered.cost_analysis()["flops"]  # pyright: ignore
    assert 0.95 * whole < flops(kernels(step, state, batch)) < whole


def test_the_longer_of_computing_and_moving_bounds_each_kernel():
    peak = devices.PeakPerformance(bfloat16=100.0, float32=1.0, bandwidth=10.0)
    found = roofline.bound([Kernel("a", 1000, 20), Kernel("b", 100, 50), Kernel("c", 0, 30)], peak)
    assert found == roofline.Bound(1100, 100, 10 + 5 + 3, 10)
    with pytest.raises(ValueError, match="bfloat16"):
        roofline.bound([], peak._replace(bfloat16=None))


def test_a_table_costs_its_updates(monkeypatch):
    """A step that takes a second for each image: seconds are the images of all whole batches."""
    made = lambda network, classes, side, size: (Kernel("a", 0, size),)  # noqa: E731
    monkeypatch.setattr(roofline, "step_kernels", made)
    rows = load_rows(str(ROOT / "configs" / "cifar100_resnet50.py"))
    row = roofline.table_row("cifar100_resnet50.py", rows, devices.PeakPerformance(1.0, 1.0, bandwidth=1.0))
    batches = [(10_000, 24), (20_000, 48), (30_000, 72), (40_000, 96), (50_000, 24)]
    stepwise = 20 * sum(examples // size * size for examples, size in batches)
    baseline = 100 * (50_000 // 24 * 24)
    alone = 20 * sum(examples // 24 * 24 for examples in range(10_000, 60_000, 10_000))
    assert (row["rows"], row["updates"]) == (
        7,
        74_940 + 208_300 + 20 * sum(m // 24 for m in range(10_000, 60_000, 10_000)),
    )
    assert row["stepwise"] == pytest.approx(stepwise / 3600)
    assert row["baseline"] == pytest.approx(baseline / 3600)
    assert row["hours"] == pytest.approx((stepwise + baseline + alone) / 3600)


def test_every_table_of_the_paper_has_its_row():
    files = roofline.experiments()
    assert "digits.py" not in files
    assert {"cifar100_resnet50.py", "figure1_resnet18.py", "face_mask_res2net50_b24.py"} <= files.keys()


def test_a_device_without_a_published_peak_is_refused():
    command = [sys.executable, str(ROOT / "benchmarks" / "roofline.py"), "--device", "abacus"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--device abacus: its peak in bfloat16 is not in" in done.stderr
