"""Write tiny.pth, tiny_old.pth, tiny_nested.pth and tiny.safetensors: what PyTorch itself saves, for the reader's test.

Usage: python write_tiny.py OUT_DIR      (needs torch and safetensors; run once, the files are kept)
"""

import collections
import pathlib
import sys

import torch
from safetensors.torch import save_file


def tensors() -> dict[str, torch.Tensor]:
    """One of each kind: a parameter, a transposed view, half precisions, an integer, two views of one storage."""
    whole = torch.arange(12.0)
    return collections.OrderedDict(
        parameter=torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)),
        transposed=torch.arange(6.0).reshape(2, 3).T,
        half=torch.arange(4).half(),
        bfloat16=torch.arange(4).bfloat16(),
        count=torch.tensor(7),
        first=whole[:4],
        second=whole[4:].reshape(2, 4),
    )


def main(out: pathlib.Path) -> None:
    """Write the four files."""
    torch.save(tensors(), out / "tiny.pth")
    torch.save(tensors(), out / "tiny_old.pth", _use_new_zipfile_serialization=False)
    nested = {"epoch": 3, "arch": "resnet", "state_dict": {f"module.{key}": value for key, value in tensors().items()}}
    torch.save(nested, out / "tiny_nested.pth")
    save_file({key: value.detach().clone().contiguous() for key, value in tensors().items()}, out / "tiny.safetensors")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
