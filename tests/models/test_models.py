"""The network family: names, counts, shapes, refusals, and the way to PyTorch's names and back."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models

COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnext50_32x4d": 25_028_904,
    "res2net50_26w_4s": 25_699_120,
    "res2net50_14w_8s": 25_059_816,
    "res2net50_48w_2s": 25_287_304,
    "res2net50_26w_6s": 37_051_448,
    "res2net50_26w_8s": 48_403_776,
    "res2net101_26w_4s": 45_206_688,
    "res2net50d": 25_718_352,
    "res2net50_v1b_26w_4s": 25_718_352,
    "res2next50": 24_671_464,
}
TINY = {"width": 8, "blocks": (1, 1, 1, 1), "num_classes": 5}


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def abstract_variables(net, size=64):
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda key, x: net.init(key, x, train=False), jax.random.key(0), images)


def random_variables(net, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32)  # noqa: E731
    return jax.tree.map(draw, abstract_variables(net))


@pytest.mark.parametrize(("name", "parameters"), COUNTS.items())
def test_parameter_count_is_the_papers(name, parameters):
    assert count(abstract_variables(models.build(name, num_classes=1000))["params"]) == parameters


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("small_images", [False, True])
def test_every_network_can_be_shrunk(name, small_images):
    net = models.build(name, small_images=small_images, **TINY)
    images = jax.ShapeDtypeStruct((2, 33, 32, 3), jnp.float32)
    logits, _ = jax.eval_shape(lambda key, x: net.init_with_output(key, x, train=True), jax.random.key(0), images)
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)


@pytest.mark.parametrize("name", ["resnet_small", "res2net_small"])
def test_small_networks_are_small_and_take_eight_pixels(name):
    net = models.build(name, num_classes=10, small_images=True)
    assert 200_000 < count(abstract_variables(net, size=8)["params"]) < 600_000


def test_a_strided_stem_keeps_the_weights_and_halves_the_maps():
    options = {"num_classes": 10, "small_images": True, "width": 8, "blocks": (1,)}
    images = jnp.zeros((1, 32, 32, 3))

    def shapes(stride: int) -> tuple[Any, Any]:
        net = models.build("resnet_small", stem_stride=stride, **options)
        variables = jax.eval_shape(partial(net.init, train=False), jax.random.key(0), images)
        is_stem = lambda module, _: module.name == "bn1"  # noqa: E731
        run = partial(net.apply, train=False, capture_intermediates=is_stem, mutable=["intermediates"])
        _, found = jax.eval_shape(run, variables, images)
        return variables["params"], found["intermediates"]["bn1"]["__call__"][0].shape

    (weights, full), (same, half) = shapes(1), shapes(2)
    assert (full, half) == ((1, 32, 32, 8), (1, 16, 16, 8))
    chex.assert_trees_all_equal_shapes(weights, same)


@pytest.mark.parametrize("name", models.names())
def test_round_trip_through_pytorchs_names_is_exact(name):
    options = {"width": 16, "blocks": (2, 1), "small_images": "small" in name}
    variables = random_variables(models.build(name, num_classes=5, **options))
    state_dict = models.to_torch(name, variables)
    again = models.from_torch(name, state_dict, **options)
    assert jax.tree.structure(variables) == jax.tree.structure(again)
    jax.tree.map(np.testing.assert_array_equal, variables, again)


def test_a_new_head_is_what_init_draws():
    options = {"width": 8, "blocks": (1,)}
    net = models.build("resnet18", num_classes=7, **options)
    state_dict = models.to_torch("resnet18", random_variables(models.build("resnet18", num_classes=5, **options)))
    variables = models.from_torch("resnet18", state_dict, num_classes=7, keep_head=False, seed=3, **options)
    fresh = jax.jit(net.init, static_argnames="train")(jax.random.key(3), jnp.zeros((1, 32, 32, 3)), train=False)
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["fc"], fresh["params"]["fc"])
    np.testing.assert_array_equal(
        variables["params"]["layer1_0"]["conv1"]["kernel"], state_dict["layer1.0.conv1.weight"].transpose(2, 3, 1, 0)
    )


def test_weights_that_do_not_fit_are_named():
    options = {"width": 8, "blocks": (1, 1, 1, 1)}
    state_dict = models.to_torch("resnet18", random_variables(models.build("resnet18", num_classes=5, **options)))
    with pytest.raises(ValueError, match=r"fc\.weight is \[5, 64\] in the file and \[7, 64\] in resnet18.*keep_head"):
        models.from_torch("resnet18", state_dict, num_classes=7, **options)
    with pytest.raises(ValueError, match=r"conv1\.weight is \[8, 3, 7, 7\] in the file and \[8, 3, 3, 3\]"):
        models.from_torch("resnet18", state_dict, small_images=True, **options)
    with pytest.raises(ValueError, match=r"layer1\.0\.conv3\.weight of resnet50 is missing"):
        models.from_torch("resnet50", state_dict, **options)
    with pytest.raises(ValueError, match=r"layer9\.weight is no part of resnet18"):
        models.from_torch("resnet18", state_dict | {"layer9.weight": np.zeros(3)}, **options)
    with pytest.raises(ValueError, match=r"no fc\.weight"):
        models.from_torch("resnet18", {}, **options)


def test_bad_names_and_sizes_get_a_sentence():
    with pytest.raises(ValueError, match=r"'res2net50' is no known network.*res2net50d"):
        models.build("res2net50", num_classes=10)
    with pytest.raises(ValueError, match="num_classes: 1 is too few"):
        models.build("resnet18", num_classes=1)
    with pytest.raises(ValueError, match=r"blocks: \(1, 0\) leaves"):
        models.build("resnet18", num_classes=10, blocks=(1, 0))
    with pytest.raises(ValueError, match="width: 1 channels"):
        models.build("resnet18", num_classes=10, width=1)
    with pytest.raises(ValueError, match="stem_stride: 3 is no stride"):
        models.build("resnet18", num_classes=10, stem_stride=3)


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("resnet20", "resnet18, resnet34, resnet50"),
        ("resnet152", "resnet101, resnet50, resnet34"),
        ("ResNet-50", "resnet50, resnet34, resnet18"),
        ("resnext101_32x8d", "resnext50_32x4d"),
        ("res2net50_26w", "res2net50_26w_8s, res2net50_26w_6s, res2net50_26w_4s"),
        ("resnetsmall", "resnet_small, res2net_small, resnet50"),
    ],
)
def test_networks_of_the_same_kind_are_suggested_by_their_depth(name, suggested):
    with pytest.raises(ValueError, match=rf"did you mean {suggested}\?"):
        models.build(name, num_classes=10)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((2, 16, 40, 3), np.float32), "16x40 pixels are too few.*takes 17x17"),
        (np.zeros((32, 32, 3), np.float32), r"float32\[32, 32, 3\] is no batch"),
        (np.zeros((2, 32, 32, 3), np.uint8), "uint8.*floating point"),
    ],
)
def test_images_that_a_network_cannot_take_get_a_sentence(images, sentence):
    net = models.build("resnet18", **TINY)
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(lambda key: net.init(key, images, train=False), jax.random.key(0))
