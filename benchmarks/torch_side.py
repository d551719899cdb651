"""PyTorch's and timm's side of a comparison: their networks, and training steps in several variants.

It runs in an environment that has torch and timm, and imports nothing of stepwise-jax.
"""

import contextlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable
from typing import Any

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.001, 0.9, 1e-4
VARIANTS = ("eager", "channels_last", "compiled")
"""PyTorch's default layout; channels last; channels last through `torch.compile`."""

# timm's block, blocks in each network stage, and the arguments that differ from a plain network's.
_MEMBERS: dict[str, tuple[str, tuple[int, ...], dict[str, int]]] = {
    "resnet18": ("BasicBlock", (2, 2, 2, 2), {}),
    "resnet34": ("BasicBlock", (3, 4, 6, 3), {}),
    "resnet50": ("Bottleneck", (3, 4, 6, 3), {}),
    "resnext50_32x4d": ("Bottleneck", (3, 4, 6, 3), {"cardinality": 32, "base_width": 4}),
    "res2net50_26w_4s": ("Bottle2neck", (3, 4, 6, 3), {"base_width": 26, "scale": 4}),
    "res2next50": ("Bottle2neck", (3, 4, 6, 3), {"base_width": 4, "cardinality": 8, "scale": 4}),
    "resnet_small": ("BasicBlock", (1, 1, 1, 1), {}),
    "res2net_small": ("Bottle2neck", (1, 1, 1, 1), {"base_width": 26, "scale": 4}),
}
_SMALL_WIDTH = 16


class _Anything(type):
    """A class with a string for every attribute: enough for the attributes of torchvision that timm reads on import."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class NoTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A stand-in for torchvision, which timm imports for its augmentations and which is not built for every CPU."""

    def __init__(self):
        self.names: list[str] = []
        """What was read of it, in order."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Finds torchvision and all its submodules."""
        ours = name.split(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """A module with a class for every attribute."""
        names = self.names

        class Module(types.ModuleType):
            def __getattr__(self, name: str) -> type:
                if name.startswith("__"):
                    raise AttributeError(name)
                names.append(f"{self.__name__}.{name}")
                return _Anything(name, (), {})

        return Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Does nothing."""


def build(setup: dict[str, Any]) -> Any:
    """The network of timm, or one of its blocks at another width or depth and with the stem for small images.

    Args:
      setup: "network", "classes", and "small_images", "width" and "blocks" as `models.build` takes them.

    Raises:
      ValueError: for a network that this file cannot build at another size.
    """
    timm = import_timm()
    name, classes = setup["network"], setup["classes"]
    changed = setup["small_images"] or setup["width"] or setup["blocks"]
    if not changed and not name.endswith("_small"):
        return timm.create_model(name, num_classes=classes)
    if name not in _MEMBERS:
        raise ValueError(f"{name} cannot be built here at another size: {', '.join(_MEMBERS)} can")
    return _build_resized(name, setup)


def import_timm() -> Any:
    """timm, with a stand-in for torchvision.

    Raises:
      ImportError: with what timm reads of torchvision, the last first, if the stand-in is not enough.
    """
    stand_in = next((each for each in sys.meta_path if isinstance(each, NoTorchvision)), NoTorchvision())
    if stand_in not in sys.meta_path:
        sys.meta_path.insert(0, stand_in)
    try:
        import timm
    # A module that fails at a stand-in's class may raise anything.
    except Exception as error:
        if not stand_in.names or isinstance(error, ModuleNotFoundError):
            raise
        names = ", ".join(dict.fromkeys(reversed(stand_in.names)))
        raise ImportError(
            f"timm cannot be imported with the stand-in for torchvision of torch_side.py ({type(error).__name__}: "
            f"{error}): another version of timm may need less of it; this one reads, the last first, {names}"
        ) from error
    return timm


def _build_resized(name: str, setup: dict[str, Any]) -> Any:
    """The same network as `models.build` makes, assembled from timm's parts."""
    from timm.models import res2net, resnet
    from torch import nn

    kind, depth, others = _MEMBERS[name]
    block = getattr(res2net if kind == "Bottle2neck" else resnet, kind)
    width = setup["width"] or (_SMALL_WIDTH if name.endswith("_small") else 64)
    channels = tuple(width * 2**stage for stage in range(4))
    options = {"cardinality": 1, "base_width": 64, **others, "act_layer": nn.ReLU, "norm_layer": nn.BatchNorm2d}
    stages, _ = resnet.make_blocks((block,) * 4, channels, tuple(setup["blocks"] or depth), width, **options)
    size, stride = (3, 1) if setup["small_images"] else (7, 2)
    stem = [nn.Conv2d(3, width, size, stride, size // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    stem += [] if setup["small_images"] else [nn.MaxPool2d(3, 2, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1] * block.expansion, setup["classes"])]
    return nn.Sequential(*stem, *(stage for _, stage in stages), *head)


class TorchSide:
    """One PyTorch network, whose training steps are prepared and run by batch size and variant."""

    def __init__(self, setup: dict[str, Any]):
        import torch

        self._torch, self._setup = torch, setup
        import_timm()
        self._device = torch.device(setup["device"])
        if setup["device"] == "cuda" and not torch.cuda.is_available():
            raise ValueError("this PyTorch sees no GPU")
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        self._steps: dict[tuple[int, str], Callable[[], None]] = {}
        self._variants: dict[str, tuple[Any, Any]] = {}

    def describe(self) -> dict[str, Any]:
        """Versions, and the number of parameters."""
        parameters = sum(each.numel() for each in build(self._setup).parameters())
        return {
            "parameters": parameters,
            "versions": {"torch": self._torch.__version__, "timm": import_timm().__version__},
        }

    def prepare(self, batch_size: int, variant: str) -> None:
        """Makes a step, compiles it if the variant requires it, and runs it twice."""
        self._steps[batch_size, variant] = self._make_step(batch_size, variant)
        self.run(batch_size, variant, 2)

    def run(self, batch_size: int, variant: str, steps: int) -> None:
        """Runs steps and waits for them."""
        step = self._steps[batch_size, variant]
        for _ in range(steps):
            step()
        if self._device.type == "cuda":
            self._torch.cuda.synchronize()

    def drop(self, batch_size: int) -> None:
        """Frees the memory of a batch size."""
        self._steps = {key: step for key, step in self._steps.items() if key[0] != batch_size}
        self.rest()

    def rest(self) -> None:
        """Frees unused memory for the turn of another process."""
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()

    def _network_and_optimizer(self, variant: str) -> tuple[Any, Any]:
        """The network of a variant with its optimizer; all batch sizes train the same one."""
        if variant not in self._variants:
            layout = self._layout(variant)
            net = build(self._setup).to(self._device).to(memory_format=layout).train()
            fused = self._device.type == "cuda"
            optimizer = self._torch.optim.SGD(
                net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=fused
            )
            mode = self._setup["compile_mode"]
            compiled = self._torch.compile(net, dynamic=False, mode=mode) if variant == "compiled" else net
            self._variants[variant] = compiled, optimizer
        return self._variants[variant]

    def _layout(self, variant: str) -> Any:
        return self._torch.contiguous_format if variant == "eager" else self._torch.channels_last

    def _make_step(self, batch_size: int, variant: str) -> Callable[[], None]:
        torch, side = self._torch, self._setup["image_size"]
        net, optimizer = self._network_and_optimizer(variant)
        images = torch.randn(batch_size, 3, side, side, device=self._device).to(memory_format=self._layout(variant))
        labels = torch.arange(batch_size, device=self._device) % self._setup["classes"]
        wide = self._setup["precision"] == "float32"
        cast = contextlib.nullcontext() if wide else torch.autocast(self._device.type, dtype=torch.bfloat16)

        def step() -> None:
            optimizer.zero_grad()
            with cast:
                loss = torch.nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()

        return step
