"""ResNet (He et al., 2016) and ResNeXt (Xie et al., 2017): the block family and the network that stacks it.

Every block is `relu(shortcut(x) + residual(x))`, and the members differ only in the residual:

    BasicBlock          3x3 -> 3x3                                    ResNet-18, ResNet-34
    Bottleneck          1x1 -> middle -> 1x1, middle = 3x3            ResNet-50, ResNet-101
      cardinality > 1                       middle = grouped 3x3      ResNeXt
      scale > 1                             middle = 3x3s in a chain  Res2Net (res2net.py); with cardinality, Res2NeXt
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from . import layers, pooling
from .normalisation import at_least_float32


class ResidualBlock(nn.Module):
    """The common part of all blocks: the shortcut, the sum and the last ReLU.

    Attributes:
      features: width of the network stage; the block has `features * expansion` output channels.
      stride: 2 in the first block of a network stage that halves the map, else 1.
      cardinality: groups of the 3x3 convolution.
      base_width: channels of a group in a network stage of 64 features (the "26w" of Res2Net, the "4d" of ResNeXt).
      scale: pieces that Res2Net divides the channels into.
      pooled_shortcut: downsample the shortcut by averaging before its 1x1 convolution (v1b) instead of skipping pixels.
      zero_init_last_scale: start with `residual(x) = 0` (Goyal et al., 2017).
      dtype: computation type.
    """

    features: int
    stride: int = 1
    cardinality: int = 1
    base_width: int = 64
    scale: int = 1
    pooled_shortcut: bool = False
    zero_init_last_scale: bool = False
    dtype: Any = jnp.float32

    expansion: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), features * expansion]."""
        shortcut = self.shortcut(x, train) if self.projects(x) else x
        return layers.rectify(shortcut + self.residual(x, train))

    def residual(self, x: jax.Array, train: bool) -> jax.Array:
        """The map that is added to the shortcut; each kind of block defines its own."""
        raise NotImplementedError

    def projects(self, x: jax.Array) -> bool:
        """Whether the shortcut of `x` needs a projection, as in the first block of most network stages."""
        return self.stride != 1 or x.shape[-1] != self.features * self.expansion

    def shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        """`x` projected to the shape of the block's output."""
        stride = self.stride
        if self.pooled_shortcut:
            x, stride = pooling.shrink_average(x, stride), 1
        x = self.conv(self.features * self.expansion, 1, "downsample_conv", stride=stride)(x)
        return self.norm("downsample_bn")(x, train=train)

    def conv(self, features: int, size: int, name: str, stride: int = 1, groups: int = 1) -> layers.Conv:
        """A convolution at the block's computation type."""
        return layers.Conv(features, size, stride, groups, dtype=self.dtype, name=name)

    def norm(self, name: str, last: bool = False, rectified: bool = False) -> layers.BatchNorm:
        """A batch norm at the block's computation type; the `last` one of the residual may start at zero."""
        zero = last and self.zero_init_last_scale
        scale_init = nn.initializers.zeros if zero else nn.initializers.ones
        return layers.BatchNorm(scale_init=scale_init, rectified=rectified, dtype=self.dtype, name=name)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions."""

    def residual(self, x: jax.Array, train: bool) -> jax.Array:
        """3x3 (with the stride), 3x3."""
        x = self.conv(self.features, 3, "conv1", stride=self.stride)(x)
        x = self.norm("bn1", rectified=True)(x, train=train)
        x = self.conv(self.features, 3, "conv2")(x)
        return self.norm("bn2", last=True)(x, train=train)


class Bottleneck(ResidualBlock):
    """A 1x1 convolution, a spatial `middle`, and a 1x1 convolution to four times the features."""

    expansion: ClassVar[int] = 4

    def residual(self, x: jax.Array, train: bool) -> jax.Array:
        """1x1, middle, 1x1."""
        projects = self.projects(x)
        x = self.conv(self.inner_width * self.scale, 1, "conv1")(x)
        x = self.norm("bn1", rectified=True)(x, train=train)
        x = self.middle(x, train, projects)
        x = self.conv(self.features * self.expansion, 1, "conv3")(x)
        return self.norm("bn3", last=True)(x, train=train)

    def middle(self, x: jax.Array, train: bool, projects: bool) -> jax.Array:
        """One 3x3 convolution, grouped if the cardinality is above one."""
        del projects
        x = self.conv(self.inner_width, 3, "conv2", stride=self.stride, groups=self.groups)(x)
        return self.norm("bn2", rectified=True)(x, train=train)

    @property
    def inner_width(self) -> int:
        """Channels of one 3x3 convolution."""
        return max(1, self.features * self.base_width * self.cardinality // 64)

    @property
    def groups(self) -> int:
        """The cardinality; in a network with fewer channels, the greatest common divisor of the two."""
        return math.gcd(self.cardinality, self.inner_width)


class ResNet(nn.Module):
    """Stem, network stages of blocks (four in the paper's), mean over the map, linear head.

    Attributes:
      block: which residual block.
      blocks: blocks in each network stage; every stage but the first halves the map and doubles the width.
      num_classes: size of the output.
      cardinality: see `ResidualBlock`.
      base_width: see `ResidualBlock`.
      scale: see `ResidualBlock`.
      width: features of the first network stage.
      v1b: a stem of three 3x3 convolutions, and pooled shortcuts.
      small_images: a 3x3 stem without max-pool, for images of 32x32 and below.
      stem_stride: stride of that stem: 1, or 2 for maps of half the side, which take about a fifth of the time.
      zero_init_last_scale: see `ResidualBlock`.
      dtype: computation type; parameters, statistics and logits are float32.
    """

    block: type[ResidualBlock]
    blocks: tuple[int, ...]
    num_classes: int
    cardinality: int = 1
    base_width: int = 64
    scale: int = 1
    width: int = 64
    v1b: bool = False
    small_images: bool = False
    stem_stride: int = 1
    zero_init_last_scale: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Classify float images [N, H, W, C]: logits, float32 [N, num_classes].

        Raises:
          ValueError: if the images have another rank or type, or are too small for the halvings of the network.
        """
        self.check(images)
        x = self.stem(images.astype(self.dtype), train)
        for stage, count in enumerate(self.blocks):
            for index in range(count):
                x = self.make_block(stage, index)(x, train=train)
        return self.head(at_least_float32(x).mean((1, 2)))

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """The image at a quarter of its side (at full or half side for small images), with `width` channels."""
        if self.small_images:
            return self.conv_norm_relu(x, train, self.width, 3, self.stem_stride, "conv1", "bn1")
        if self.v1b:
            x = self.conv_norm_relu(x, train, self.width // 2, 3, 2, "conv1_0", "conv1_1")
            x = self.conv_norm_relu(x, train, self.width // 2, 3, 1, "conv1_3", "conv1_4")
            x = self.conv_norm_relu(x, train, self.width, 3, 1, "conv1_6", "bn1")
        else:
            x = self.conv_norm_relu(x, train, self.width, 7, 2, "conv1", "bn1")
        return pooling.max_pool(x)

    def conv_norm_relu(
        self, x: jax.Array, train: bool, features: int, size: int, stride: int, conv: str, norm: str
    ) -> jax.Array:
        """One layer of the stem, with modules named `conv` and `norm`."""
        x = layers.Conv(features, size, stride, dtype=self.dtype, name=conv)(x)
        return layers.BatchNorm(rectified=True, dtype=self.dtype, name=norm)(x, train=train)

    def make_block(self, stage: int, index: int) -> ResidualBlock:
        """Block `index` of network stage `stage`, both counted from zero."""
        return self.block(
            features=self.width * 2**stage,
            stride=2 if stage > 0 and index == 0 else 1,
            cardinality=self.cardinality,
            base_width=self.base_width,
            scale=self.scale,
            pooled_shortcut=self.v1b,
            zero_init_last_scale=self.zero_init_last_scale,
            dtype=self.dtype,
            name=f"layer{stage + 1}_{index}",
        )

    def head(self, x: jax.Array) -> jax.Array:
        """Logits of pooled features [N, C], in float32, initialised as PyTorch's linear layer."""
        initial = layers.uniform_within(1 / math.sqrt(x.shape[-1]))
        return nn.Dense(self.num_classes, kernel_init=initial, bias_init=initial, name="fc")(x)

    def check(self, images: jax.Array | jax.ShapeDtypeStruct) -> None:
        """Refuse images of a shape or type that the network cannot take."""
        if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images: {images.dtype}{list(images.shape)} is no batch of images; "
                "they must be floating point [N, H, W, C], scaled and normalised"
            )
        halvings = len(self.blocks) - 1 + (self.stem_stride - 1 if self.small_images else 2)
        smallest = 2 ** max(halvings - 1, 0) + 1
        if min(images.shape[1:3]) < smallest:
            raise ValueError(
                f"images: {images.shape[1]}x{images.shape[2]} pixels are too few to be halved {halvings} times; "
                f"this network takes {smallest}x{smallest} and more"
                + ("" if self.small_images else " (fewer with small_images=True)")
            )
