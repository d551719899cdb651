"""The networks of the paper, by name: ResNet, ResNeXt, Res2Net, Res2NeXt, in Flax.

`build("res2net50_26w_4s", num_classes=100)` returns a network; `net.init(key, images, train=False)` its variables
`{"params", "batch_stats"}` for float images [N, H, W, 3]; `net.apply(variables, images, train=False)` logits [N, 100].
"""

from .family import build, names
from .initial_weights import import_weights, load_weights
from .resnet import ResNet
from .weights.conversion import from_torch, to_torch
from .weights.files import read_weights
from .weights.safetensors_files import write_safetensors

__all__ = [
    "ResNet",
    "build",
    "from_torch",
    "import_weights",
    "load_weights",
    "names",
    "read_weights",
    "to_torch",
    "write_safetensors",
]
