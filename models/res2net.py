"""Res2Net (Gao et al., 2021): the bottleneck whose 3x3 convolutions form a chain over pieces of the channels.

With cardinality above one it is Res2NeXt. The v1b variant differs only in the stem and the shortcuts (`ResNet.v1b`).
"""

import jax
import jax.numpy as jnp

from . import pooling
from .resnet import Bottleneck


class Res2NetBottleneck(Bottleneck):
    """A bottleneck of several scales: piece i is convolved after the result of piece i - 1 was added to it."""

    def middle(self, x: jax.Array, train: bool, projects: bool) -> jax.Array:
        """Split into `scale` pieces, convolve all but the last, and concatenate them.

        A block that projects its shortcut starts a network stage: there the pieces are not chained, and the last one is
        average-pooled to the others' size; elsewhere it passes unchanged (as in the authors' code; not in the paper).
        """
        *pieces, last = jnp.split(x, self.scale, axis=-1)
        outputs = []
        for index, piece in enumerate(pieces):
            chained = index > 0 and not projects
            outputs.append(self.convolve_piece(piece + outputs[-1] if chained else piece, index, train))
        outputs.append(pooling.avg_pool(last, self.stride) if projects else last)
        return jnp.concatenate(outputs, axis=-1)

    def convolve_piece(self, piece: jax.Array, index: int, train: bool) -> jax.Array:
        """The 3x3 convolution, batch norm and ReLU of one piece."""
        x = self.conv(self.inner_width, 3, f"convs_{index}", stride=self.stride, groups=self.groups)(piece)
        return self.norm(f"bns_{index}", rectified=True)(x, train=train)
