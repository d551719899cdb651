"""Convolution, pooling and batch norm against the library's own, or against their closed forms."""

import os
import re
import subprocess
import sys
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from models import contraction, layers, pooling
from models.convolution import convolve
from models.gpu_convolution import join_groups
from models.normalisation import normalise
from models.plain_convolution import convolve_plainly


def train_norm(norm, variables, x) -> Any:
    """The output, and the updated statistics."""
    output, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    return output, updated["batch_stats"]


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def trace_as_on(monkeypatch, platform):
    """What is traced from here on is what `platform` gets, wherever it runs."""
    monkeypatch.setattr(lax, "platform_dependent", lambda *args, **by: by.get(platform, by["default"])(*args))
    jax.clear_caches()


@pytest.mark.parametrize(
    ("size", "stride", "groups", "channels", "features", "side"),
    [
        (1, 1, 1, 8, 12, 5),
        (1, 2, 1, 8, 12, 7),
        (3, 1, 1, 6, 10, 9),
        (3, 2, 1, 6, 10, 8),
        (3, 2, 1, 6, 10, 9),
        (3, 2, 1, 3, 10, 9),
        (5, 2, 1, 3, 10, 13),
        (7, 2, 1, 3, 8, 20),
        (7, 2, 1, 3, 8, 19),
        (3, 1, 1, 6, 10, 2),
        (3, 2, 1, 6, 10, 4),
        (3, 1, 1, 6, 10, 1),
        (5, 3, 1, 4, 6, 11),
        (3, 3, 1, 4, 6, 7),
        (7, 2, 1, 3, 8, 8),
        (3, 2, 4, 12, 8, 3),
        (3, 1, 8, 32, 32, 6),
        (3, 2, 16, 128, 128, 7),
        (3, 1, 4, 12, 8, 6),
        (1, 1, 4, 12, 8, 6),
    ],
)
@pytest.mark.parametrize(
    ("platform", "most_bytes", "patches_pay"),
    [("cpu", 1e9, 0), ("cpu", 0, 0), ("cpu", 0, 1e9), ("cuda", 0, 0)],
    ids=["rows", "patches", "plain", "gpu"],
)
def test_convolution_and_its_gradients_are_the_librarys(
    monkeypatch, platform, most_bytes, patches_pay, size, stride, groups, channels, features, side
):
    monkeypatch.setattr("models.row_products._MOST_BYTES", most_bytes)
    monkeypatch.setattr("models.convolution._PATCHES_PAY", patches_pay)
    trace_as_on(monkeypatch, platform)
    # An image of three channels is even on both sides or on neither, as a GPU's squares would have it.
    x = normal(4, side, side + (2 if channels == 3 else 1), channels)
    kernel = normal(size, size, channels // groups, features, seed=1)

    def value_and_gradients(convolution):
        def apply(x, kernel):
            output, pull_back = jax.vjp(lambda x, kernel: convolution(x, kernel, stride, groups), x, kernel)
            return output, pull_back(jnp.cos(jnp.arange(output.size, dtype=jnp.float32)).reshape(output.shape))

        return jax.jit(apply)(x, kernel)

    expected, actual = value_and_gradients(convolve_plainly), value_and_gradients(convolve)
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4), actual, expected)


@pytest.mark.parametrize("patches_pay", [0, 1e9], ids=["patches", "plain"])
def test_a_convolution_in_bfloat16_and_its_gradients_are_those_of_float32_rounded(monkeypatch, patches_pay):
    monkeypatch.setattr("models.row_products._MOST_BYTES", 0)
    monkeypatch.setattr("models.convolution._PATCHES_PAY", patches_pay)
    trace_as_on(monkeypatch, "cpu")

    def value_and_gradients(dtype):
        x, kernel = (
            array.astype(jnp.bfloat16).astype(dtype) for array in (normal(2, 9, 9, 6), normal(3, 3, 6, 10, seed=1))
        )
        output, pull_back = jax.vjp(lambda x, kernel: jnp.asarray(convolve(x, kernel, 2)), x, kernel)
        return output, pull_back(jnp.ones(output.shape, output.dtype))

    for made, exact in zip(
        *(jax.tree.leaves(value_and_gradients(dtype)) for dtype in (jnp.bfloat16, jnp.float32)), strict=True
    ):
        assert made.dtype == jnp.bfloat16
        assert jnp.linalg.norm(made - exact) < 1e-2 * jnp.linalg.norm(exact)


def convolutions(x, kernel, stride, groups=1):
    """The shapes that a GPU is given: of each convolution its input, kernel and result."""
    text = jax.jit(lambda x, kernel: convolve(x, kernel, stride, groups)).lower(x, kernel).as_text()
    products = [line.rsplit(" : ", 1)[1] for line in text.splitlines() if "stablehlo.convolution" in line]
    return [
        tuple(tuple(map(int, re.findall(r"\d+(?=x)", shape))) for shape in re.split(", | -> ", line))
        for line in products
    ]


def test_a_gpu_gets_channels_in_whole_loads_and_the_stem_in_squares(monkeypatch):
    trace_as_on(monkeypatch, "cuda")
    x, kernel = normal(2, 8, 8, 26).astype(jnp.bfloat16), normal(3, 3, 26, 52).astype(jnp.bfloat16)
    assert convolutions(x, kernel, 1) == [((2, 8, 8, 32), (3, 3, 32, 56), (2, 8, 8, 56))]
    stem = normal(2, 16, 16, 3).astype(jnp.bfloat16), normal(7, 7, 3, 8).astype(jnp.bfloat16)
    assert convolutions(*stem, 2) == [((2, 11, 11, 16), (4, 4, 16, 8), (2, 8, 8, 8))]


@pytest.mark.parametrize(("width", "groups", "left"), [(4, 32, 2), (8, 32, 4), (16, 8, 8), (4, 8, 1), (1, 96, 1)])
def test_thin_groups_are_joined(width, groups, left):
    kernel, number = join_groups(normal(3, 3, width, groups), groups)
    assert (number, kernel.shape) == (left, (3, 3, width * groups // left, groups))


def test_kernel_gradient_is_the_same_in_several_pieces(monkeypatch):
    x, kernel = normal(6, 8, 8, 4), normal(3, 3, 4, 4, seed=1)

    def gradient():
        return jax.grad(lambda kernel: jnp.square(convolve(x, kernel)).sum())(kernel)

    monkeypatch.setattr("models.row_products._MOST_BYTES", 0)
    monkeypatch.setattr("models.convolution._PATCHES_PAY", 0)
    jax.clear_caches()
    whole = gradient()
    monkeypatch.setattr("models.convolution._PATCH_BYTES", 2 * 8 * 8 * 36 * 4)
    jax.clear_caches()
    np.testing.assert_allclose(gradient(), whole, rtol=1e-4)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 9, 3), (1, 1, 2, 3)])
@pytest.mark.parametrize("draw", ["normal", "ties"])
def test_max_pool_and_its_gradient_are_xlas(shape, draw):
    x = normal(*shape) if draw == "normal" else jnp.round(normal(*shape))

    def library(x):
        return lax.reduce_window(x, -np.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))

    expected, pull_back = jax.vjp(library, x)
    actual, pull_back_ours = jax.vjp(pooling.max_pool, x)
    np.testing.assert_array_equal(actual, expected)
    gradient = normal(*expected.shape, seed=1)
    np.testing.assert_allclose(pull_back_ours(gradient)[0], pull_back(gradient)[0], rtol=1e-6, atol=1e-6)


def test_average_pools_are_pytorchs():
    x = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(pooling.shrink_average(x, 2)[0, ..., 0], [[3, 4.5], [7.5, 9]])
    np.testing.assert_allclose(pooling.avg_pool(x, 2)[0, ..., 0] * 9, [[12, 16], [24, 28]])
    assert pooling.shrink_average(x, 1) is x


@pytest.mark.parametrize(("side", "stride"), [(6, 1), (6, 2), (7, 2), (1, 1), (2, 2)])
def test_average_pool_and_its_gradient_are_xlas(side, stride):
    def windows(x):
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return lax.reduce_window(x, np.float32(0), lax.add, (1, 3, 3, 1), (1, stride, stride, 1), padding) / 9

    x = normal(2, side, side, 3)
    expected, back = jax.vjp(windows, x)
    actual, ours_back = jax.vjp(lambda x: pooling.avg_pool(x, stride), x)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
    gradient = normal(*expected.shape, seed=1)
    np.testing.assert_allclose(ours_back(gradient)[0], back(gradient)[0], rtol=1e-6, atol=1e-6)


def test_batch_norm_is_the_closed_form():
    x = 3 + 2 * normal(4, 3, 3, 5)
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), x, train=False)
    output, statistics = train_norm(norm, variables, x)
    rows = np.asarray(x, np.float64).reshape(-1, 5)
    np.testing.assert_allclose(statistics["mean"], 0.1 * rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
    expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    np.testing.assert_allclose(np.reshape(output, (-1, 5)), expected, rtol=1e-4, atol=1e-5)
    evaluated: Any = norm.apply({**variables, "batch_stats": statistics}, x, train=False)
    expected = (rows - 0.1 * rows.mean(0)) / np.sqrt(0.9 + 0.1 * rows.var(0, ddof=1) + 1e-5)
    np.testing.assert_allclose(np.reshape(evaluated, (-1, 5)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("rectified", [False, True])
def test_gradient_of_batch_norm_is_that_of_its_definition(monkeypatch, rectified, platform):
    trace_as_on(monkeypatch, platform)

    def defined(x, scale, bias):
        deviation = jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
        normalised = (x - x.mean((0, 1, 2))) / deviation * scale + bias
        return jax.nn.relu(normalised) if rectified else normalised

    def ours(x, scale, bias):
        normalised: Any = normalise(x, scale, bias, jnp.zeros(5), 1e-5, rectified)
        return normalised[0]

    arguments = 1 + 2 * normal(4, 3, 3, 5), normal(5, seed=1), normal(5, seed=2)
    gradient = normal(4, 3, 3, 5, seed=3)
    for expected, actual in zip(
        jax.vjp(defined, *arguments)[1](gradient), jax.vjp(ours, *arguments)[1](gradient), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("far", [0.0, 30.0, 3000.0])
def test_batch_norm_is_exact_however_far_one_channel_is_from_zero(monkeypatch, far, platform):
    trace_as_on(monkeypatch, platform)
    means = far * jnp.asarray([0.0, 0.0, 1.0, 0.0, -1.0])
    x = normal(16, 8, 8, 5) + means
    # A CPU finds its own way; an accelerator is told roughly where the means are.
    near = jnp.zeros(5) if platform == "cpu" else means + 1
    scale, gradient = 1 + normal(5, seed=1) / 4, normal(16, 8, 8, 5, seed=3)

    def normalised(x, scale):
        return cast(Any, normalise(x, scale, jnp.zeros_like(scale), near, 1e-5))

    (output, mean, var), back = jax.vjp(normalised, x, scale)
    nothing = jnp.zeros_like(scale)
    of_x, of_scale = back((gradient, nothing, nothing))
    # The same in float64, from the definition.
    rows, of_rows = (np.asarray(array, np.float64).reshape(-1, 5) for array in (x, gradient))
    inverse = 1 / np.sqrt(rows.var(0) + 1e-5)
    standard = (rows - rows.mean(0)) * inverse
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(var, rows.var(0), rtol=1e-4)
    np.testing.assert_allclose(np.reshape(output, (-1, 5)), standard * scale, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(of_scale, (of_rows * standard).sum(0), rtol=1e-3, atol=2e-2)
    expected = of_rows - of_rows.mean(0) - standard * (of_rows * standard).mean(0)
    np.testing.assert_allclose(np.reshape(of_x, (-1, 5)), expected * inverse * scale, rtol=1e-3, atol=2e-3)


def test_batch_norm_keeps_float32_statistics_under_bfloat16():
    x = (1000 + normal(64, 8, 8, 3)).astype(jnp.bfloat16)
    norm = layers.BatchNorm(dtype=jnp.bfloat16)
    output, statistics = train_norm(norm, norm.init(jax.random.key(0), x, train=False), x)
    rows = np.asarray(x, np.float64).reshape(-1, 3)
    assert output.dtype == jnp.bfloat16
    assert statistics["var"].dtype == jnp.float32
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-3)


def test_a_rectified_batch_norm_is_a_relu_of_one():
    x = normal(4, 3, 3, 5)
    plain, rectified = layers.BatchNorm(), layers.BatchNorm(rectified=True)
    variables = plain.init(jax.random.key(0), x, train=False)
    np.testing.assert_array_equal(
        train_norm(rectified, variables, x)[0], jax.nn.relu(train_norm(plain, variables, x)[0])
    )
    evaluated: Any = plain.apply(variables, x, train=False)
    np.testing.assert_array_equal(rectified.apply(variables, x, train=False), jax.nn.relu(evaluated))


def test_the_gradient_of_a_relu_is_none_at_zero_and_below():
    x = jnp.asarray([-1.0, 0.0, 2.0])
    assert jax.grad(lambda x: layers.rectify(x).sum())(x).tolist() == [0, 0, 1]


def test_batch_norm_of_one_value_is_refused():
    norm = layers.BatchNorm()
    x = jnp.ones((1, 1, 1, 3))
    variables = norm.init(jax.random.key(0), x, train=False)
    with pytest.raises(ValueError, match=r"one value per channel.*two images"):
        norm.apply(variables, x, train=True, mutable=["batch_stats"])


FOUR_DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np, models
from jax.sharding import NamedSharding, PartitionSpec
from stepwise_jax.runtime import sharding
platform = sys.argv[1]
jax.lax.platform_dependent = lambda *args, **by: by.get(platform, by["default"])(*args)
assert jax.device_count() == 4
net = models.build("res2next50", num_classes=3, width=8, blocks=(1,), small_images=True)
images = jax.random.normal(jax.random.key(1), (8, 8, 8, 3)) * jnp.arange(1.0, 9.0)[:, None, None, None]
variables = jax.jit(lambda key: net.init(key, images, train=False))(jax.random.key(0))

@jax.jit
def step(variables, images):
    def loss(params):
        logits, updated = net.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.square(logits).mean(), updated["batch_stats"]
    return jax.value_and_grad(loss, has_aux=True)(variables["params"])

mesh = sharding.make_mesh()
shared = (jax.device_put(variables, NamedSharding(mesh, PartitionSpec())),
          jax.device_put(images, NamedSharding(mesh, PartitionSpec("data"))))
divided = jax.jit(sharding.on_mesh(mesh, step.__wrapped__)).lower(*shared).compile()
one, four = step(variables, images), divided(*shared)
assert "all-reduce(" in divided.as_text() and "all-gather(" not in divided.as_text()
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, four)
"""


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_four_devices_normalise_by_the_global_batch_and_gather_nothing(platform):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    result = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES, platform],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_zero_initialised_last_scale_makes_blocks_the_identity():
    from models.resnet import Bottleneck

    block = Bottleneck(features=4, zero_init_last_scale=True)
    x = jax.nn.relu(normal(2, 4, 4, 16))
    output, _ = block.init_with_output(jax.random.key(0), x, train=True)
    np.testing.assert_array_equal(output, x)


@pytest.mark.parametrize(("wide", "narrow"), [(40, 24), (24, 40), (24, 24)])
def test_rows_are_contracted_with_the_narrower_matrix_first(wide, narrow):
    left, right = (jax.random.normal(jax.random.key(at), (512, width)) for at, width in enumerate((wide, narrow)))
    contract = jax.jit(contraction.contract_rows)
    expected = np.asarray(left, np.float64).T @ np.asarray(right, np.float64)
    np.testing.assert_allclose(contract(left, right), expected, atol=1e-4)
    # XLA turns products around as it likes; what it runs is what counts.
    program = str(contract.lower(left, right).compile().as_text())
    (shape,) = re.findall(r"= f32\[(\d+),(\d+)\]\S* dot\(", program)
    assert [int(side) for side in shape] == sorted((wide, narrow))
