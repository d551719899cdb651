"""Conversion between PyTorch's `state_dict` and Flax's variables, by one table of names. Needs no PyTorch."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from ..family import build, names
from ..resnet import ResNet

# Flax's name of a module or leaf -> PyTorch's; the first pattern that matches the whole name applies.
_NAMES = (
    (r"layer(\d+)_(\d+)", r"layer\1.\2"),
    (r"(convs|bns|conv1)_(\d+)", r"\1.\2"),
    (r"kernel|scale", "weight"),
    (r"mean|var", r"running_\g<0>"),
)
_SHORTCUT = (("downsample_conv", "downsample.0"), ("downsample_bn", "downsample.1"))
_POOLED_SHORTCUT = (("downsample_conv", "downsample.1"), ("downsample_bn", "downsample.2"))

STEMS = ("conv1.weight", "conv1.0.weight")
"""PyTorch's names of the first kernel, in networks with one convolution in their stem and with three."""

_Path = tuple[str, ...]


def from_torch(
    name: str,
    state_dict: Mapping[str, Any],
    *,
    num_classes: int | None = None,
    keep_head: bool = True,
    seed: int = 0,
    small_images: bool = False,
    width: int | None = None,
    blocks: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Flax variables of the network `name` from a PyTorch `state_dict`.

    Args:
      name: one of `names()`.
      state_dict: arrays (numpy, or whatever numpy takes) by PyTorch's names; `num_batches_tracked` is not needed.
      num_classes: classes of the network; by default those of the file.
      keep_head: take the linear head from the file. Otherwise it is drawn as by `init(jax.random.key(seed), …)`.
      seed: see `keep_head`.
      small_images: see `build`; so are `width` and `blocks`.
      width: see `build`.
      blocks: see `build`.

    Returns:
      `{"params", "batch_stats"}`, numpy arrays of float32 (of float64 if the file's are).

    Raises:
      ValueError: if an array is missing, left over, of another shape than the network's, or not finite.
    """
    num_classes = num_classes or _classes_in(name, state_dict)
    net = build(name, num_classes=num_classes, small_images=small_images, width=width, blocks=blocks)
    paths = _paths(net, _channels_in(state_dict))
    table = {path: torch_name(path, net.v1b) for path in paths if keep_head or path[1] != "fc"}
    wrong = _misfit(name, state_dict, {table[path]: _torch_shape(paths[path]) for path in table})
    if wrong:
        raise ValueError(f"weights: {wrong}{_other_name(name, state_dict)}")
    leaves = {path: _to_flax_layout(_at_least_float32(key, state_dict[key])) for path, key in table.items()}
    if not keep_head:
        leaves |= _new_head(net, _channels_in(state_dict), seed)
    return traverse_util.unflatten_dict(leaves)


def wanted_shapes(
    name: str, *, small_images: bool = False, width: int | None = None, blocks: Sequence[int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of the network `name` for colour images, by PyTorch's names, without the head."""
    net = build(name, num_classes=2, small_images=small_images, width=width, blocks=blocks)
    return _shapes_without_head(net, 3)


def to_torch(name: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The PyTorch `state_dict` of Flax variables: the exact inverse of `from_torch`.

    Args:
      name: one of `names()`.
      variables: `{"params", "batch_stats"}` of that network.
    """
    v1b = build(name, num_classes=2).v1b
    leaves = traverse_util.flatten_dict({key: variables[key] for key in ("params", "batch_stats")})
    return {torch_name(path, v1b): _to_torch_layout(np.asarray(leaf)) for path, leaf in leaves.items()}


def torch_name(path: _Path, v1b: bool) -> str:
    """PyTorch's name of the leaf at `path` (collection first, as `("params", "layer1_0", "conv1", "kernel")`)."""
    patterns = _NAMES + (_POOLED_SHORTCUT if v1b else _SHORTCUT)
    return ".".join(_translate(part, patterns) for part in path[1:])


def _translate(part: str, patterns: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in patterns:
        if match := re.fullmatch(pattern, part):
            return match.expand(replacement)
    return part


def _at_least_float32(key: str, array: Any) -> np.ndarray:
    array = np.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"weights: {key} is of type {array.dtype}; it must hold floating-point numbers")
    with np.errstate(over="ignore"):
        bad = array.size - np.count_nonzero(np.isfinite(array.astype(np.float32)))
    if bad:
        raise ValueError(f"weights: {key} holds {bad} values that are not finite (NaN or infinite) in float32")
    return array.astype(np.promote_types(array.dtype, np.float32))


def _to_flax_layout(array: np.ndarray) -> np.ndarray:
    """OIHW to HWIO, and the head's [out, in] to [in, out]."""
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)


def _to_torch_layout(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]


def _paths(net: ResNet, channels: int) -> dict[_Path, tuple[int, ...]]:
    """Shape of every leaf of the network's variables."""
    small: Any = net.clone(num_classes=2)
    shapes = _shapes_of_two_classes(small, channels)
    return {path: (*shape[:-1], net.num_classes) if path[1] == "fc" else shape for path, shape in shapes.items()}


@functools.lru_cache(maxsize=8)  # tracing takes a second, and a file is compared with the network twice
def _shapes_of_two_classes(net: ResNet, channels: int) -> Mapping[_Path, tuple[int, ...]]:
    images = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    variables = jax.eval_shape(lambda key, x: net.init(key, x, train=False), jax.random.key(0), images)
    leaves: dict[_Path, Any] = traverse_util.flatten_dict(variables)
    return {path: leaf.shape for path, leaf in leaves.items()}


def _new_head(net: ResNet, channels: int, seed: int) -> dict[_Path, np.ndarray]:
    # In the compiled function everything but the head is dead code, so the rest of the network is not drawn.
    images = jnp.zeros((1, 64, 64, channels))
    head = jax.jit(lambda key: net.init(key, images, train=False)["params"]["fc"])(jax.random.key(seed))
    return {("params", "fc", leaf): np.asarray(array) for leaf, array in head.items()}


def _classes_in(name: str, state_dict: Mapping[str, Any]) -> int:
    if "fc.weight" not in state_dict:
        raise ValueError(f"weights: no fc.weight among {len(state_dict)} arrays, so these are not {name}'s")
    shape = tuple(state_dict["fc.weight"].shape)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"weights: fc.weight is {list(shape)} in the file; a head is [classes, features]")
    return shape[0]


def _channels_in(state_dict: Mapping[str, Any]) -> int:
    """Channels of the images that the weights are for."""
    shapes = (tuple(state_dict[key].shape) for key in STEMS if key in state_dict)
    return next((shape[1] for shape in shapes if len(shape) == 4 and shape[1] > 0), 3)


def _misfit(name: str, state_dict: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> str | None:
    """The first difference between the file and the network, or None."""
    # Kernels first: their shapes say more than those of vectors.
    expected = dict(sorted(expected.items(), key=lambda item: -len(item[1])))
    missing = [key for key in expected if key not in state_dict]
    if missing:
        wanted = f"{missing[0]} of {name} is missing ({len(missing)} of {len(expected)} arrays are)"
        return f"{wanted}{_other_names(state_dict, expected)}{_head_hint(missing)}"
    for key, shape in expected.items():
        found = tuple(state_dict[key].shape)
        if found != shape:
            return f"{key} is {list(found)} in the file and {list(shape)} in {name}{_head_hint([key])}"
    unknown = [key for key in state_dict if key not in expected and not _ignored(key)]
    return f"{unknown[0]} is no part of {name} ({len(unknown)} arrays are not)" if unknown else None


def _other_names(state_dict: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Some names of the file that are not the network's: they show how its author named the arrays."""
    others = [key[:80] for key in state_dict if key not in expected and not _ignored(key)]
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f"; the file has {', '.join(others[:3])}{more}" if others else ""


def _head_hint(keys: Sequence[str]) -> str:
    head_only = all(key.startswith("fc.") for key in keys)
    return "; keep_head=False draws a new head" if head_only else ""


def _other_name(name: str, state_dict: Mapping[str, Any]) -> str:
    """A hint if the weights belong to another network, at its own size."""
    places = {match.groups() for key in state_dict if (match := re.match(r"layer(\d+)\.(\d+)\.", key))}
    blocks = tuple(sum(layer == str(number) for layer, _ in places) for number in range(1, 5))
    networks = {other: build(other, num_classes=2) for other in names() if other != name}
    likely = {other: net for other, net in networks.items() if net.blocks == blocks}
    found = next((other for other, net in likely.items() if _fits(other, net, state_dict)), None)
    return f"; these weights are {found}'s" if found else ""


def _fits(name: str, net: ResNet, state_dict: Mapping[str, Any]) -> bool:
    if "bn1.weight" not in state_dict or tuple(state_dict["bn1.weight"].shape) != (net.width,):
        return False
    return _misfit(name, state_dict, _shapes_without_head(net, _channels_in(state_dict))) is None


def _shapes_without_head(net: ResNet, channels: int) -> dict[str, tuple[int, ...]]:
    paths = {path: shape for path, shape in _paths(net, channels).items() if path[1] != "fc"}
    return {torch_name(path, net.v1b): _torch_shape(shape) for path, shape in paths.items()}


def _ignored(key: str) -> bool:
    return key.startswith("fc.") or key.endswith("num_batches_tracked") or key == "n_averaged"
