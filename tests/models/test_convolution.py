"""Convolutions and the products they are made of, against the library's own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import contraction
from models.convolution import convolve
from models.gpu_convolution import join_groups
from models.plain_convolution import convolve_plainly
from tests.models.layer_inputs import normal, trace_as_on


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
