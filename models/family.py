"""The networks of the paper, by name: ResNet, ResNeXt, Res2Net, Res2NeXt, in Flax.

net = models.build("res2net50_26w_4s", num_classes=100)
variables = net.init(key, images, train=False)                      # images: float [N, H, W, 3]
logits = net.apply(variables, images, train=False)                  # float32 [N, 100]
"""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from .res2net import Res2NetBottleneck
from .resnet import BasicBlock, Bottleneck, ResidualBlock, ResNet

__all__ = ["ResNet", "build", "names"]


@dataclasses.dataclass(frozen=True)
class _Architecture:
    """The architecture of one network; the fields are those of `ResNet`."""

    block: type[ResidualBlock]
    blocks: tuple[int, int, int, int]
    cardinality: int = 1
    base_width: int = 64
    scale: int = 1
    width: int = 64
    v1b: bool = False


def _res2net(blocks: tuple[int, int, int, int], base_width: int, scale: int, **others: Any) -> _Architecture:
    return _Architecture(Res2NetBottleneck, blocks, base_width=base_width, scale=scale, **others)


_DEPTH_50 = (3, 4, 6, 3)
_DEPTH_101 = (3, 4, 23, 3)

_ARCHITECTURES = {
    "resnet18": _Architecture(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _Architecture(BasicBlock, _DEPTH_50),
    "resnet50": _Architecture(Bottleneck, _DEPTH_50),
    "resnet101": _Architecture(Bottleneck, _DEPTH_101),
    "resnext50_32x4d": _Architecture(Bottleneck, _DEPTH_50, cardinality=32, base_width=4),
    "res2net50_26w_4s": _res2net(_DEPTH_50, 26, 4),
    "res2net50_14w_8s": _res2net(_DEPTH_50, 14, 8),
    "res2net50_48w_2s": _res2net(_DEPTH_50, 48, 2),
    "res2net50_26w_6s": _res2net(_DEPTH_50, 26, 6),
    "res2net50_26w_8s": _res2net(_DEPTH_50, 26, 8),
    "res2net101_26w_4s": _res2net(_DEPTH_101, 26, 4),
    "res2net101_14w_8s": _res2net(_DEPTH_101, 14, 8),
    "res2net101_48w_2s": _res2net(_DEPTH_101, 48, 2),
    "res2net101_26w_6s": _res2net(_DEPTH_101, 26, 6),
    "res2net101_26w_8s": _res2net(_DEPTH_101, 26, 8),
    "res2net50_v1b_26w_4s": _res2net(_DEPTH_50, 26, 4, v1b=True),
    "res2net50d": _res2net(_DEPTH_50, 26, 4, v1b=True),
    "res2net101_v1b_26w_4s": _res2net(_DEPTH_101, 26, 4, v1b=True),
    "res2net101d": _res2net(_DEPTH_101, 26, 4, v1b=True),
    "res2next50": _res2net(_DEPTH_50, 4, 4, cardinality=8),
    "resnet_small": _Architecture(BasicBlock, (1, 1, 1, 1), width=16),
    "res2net_small": _res2net((1, 1, 1, 1), 26, 4, width=16),
}


def names() -> tuple[str, ...]:
    """Names that `build` accepts: timm's for the paper's networks, and two small ones for images of 8 to 32 pixels."""
    return tuple(_ARCHITECTURES)


def build(
    name: str,
    *,
    num_classes: int,
    small_images: bool = False,
    stem_stride: int = 1,
    dtype: Any = jnp.float32,
    width: int | None = None,
    blocks: Sequence[int] | None = None,
    zero_init_last_scale: bool = False,
) -> ResNet:
    """The network called `name`, not yet initialised.

    Args:
      name: one of `names()`.
      num_classes: size of the output, at least 2.
      small_images: use a 3x3 stem without max-pool, for images of 32x32 and below.
      stem_stride: stride of that stem, 1 or 2.
      dtype: computation type, float32 or bfloat16; parameters, batch statistics and logits are float32.
      width: features of the first network stage (the paper's networks: 64), to make a network thinner.
      blocks: blocks in each network stage, to make a network shallower.
      zero_init_last_scale: start every block as the identity (Goyal et al., 2017).

    Raises:
      ValueError: for an unknown name (the message has the nearest ones) or an impossible size.
    """
    architecture = _architecture(name)
    _check_sizes(num_classes, stem_stride, width, blocks)
    fields = {f.name: getattr(architecture, f.name) for f in dataclasses.fields(architecture)}
    fields |= {"width": width or architecture.width, "blocks": tuple(blocks or architecture.blocks)}
    return ResNet(
        num_classes=num_classes,
        small_images=small_images,
        stem_stride=stem_stride,
        dtype=dtype,
        zero_init_last_scale=zero_init_last_scale,
        **fields,
    )


def _check_sizes(num_classes: int, stem_stride: int, width: int | None, blocks: Sequence[int] | None) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes: {num_classes} is too few to classify; it must be 2 or more")
    if width is not None and width < 2:
        raise ValueError(f"width: {width} channels are too few; it must be 2 or more, such as 64")
    if stem_stride not in (1, 2):
        raise ValueError(f"stem_stride: {stem_stride} is no stride of a stem; it must be 1 or 2")
    if blocks is not None and (not blocks or min(blocks) < 1):
        raise ValueError(f"blocks: {tuple(blocks)} leaves a network stage empty; it must be like (3, 4, 6, 3)")


def _architecture(name: str) -> _Architecture:
    if name in _ARCHITECTURES:
        return _ARCHITECTURES[name]
    raise ValueError(f"network: {name!r} is no known network; did you mean {', '.join(_nearest(name))}?")


def _nearest(name: str) -> list[str]:
    """Known networks of the same kind by depth, such as resnet18 for resnet20; otherwise those with similar names."""
    kind, depth = _kind_and_depth(name)
    alike = difflib.get_close_matches(name, _ARCHITECTURES, n=len(_ARCHITECTURES), cutoff=0.0)
    same = [known for known in alike if kind and _kind_and_depth(known)[0] == kind]
    if same:
        return sorted(same, key=lambda known: abs(_kind_and_depth(known)[1] - depth))[:3]
    return difflib.get_close_matches(name, _ARCHITECTURES, n=3, cutoff=0.4) or list(_ARCHITECTURES)[:3]


def _kind_and_depth(name: str) -> tuple[str, int]:
    """`res2net` and 50 of `Res2Net-50_26w_4s`."""
    match = re.match(r"([a-z\d]*[a-z])[-_]?(\d{1,4})(?![\da-z]*\d)", name.lower())
    return (match[1], int(match[2])) if match else ("", 0)
