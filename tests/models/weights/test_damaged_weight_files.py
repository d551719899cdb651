"""Weight files with random damage: whatever is in a file, reading it ends soon, with the weights or with a sentence.

`DAMAGED_WEIGHT_FILES=500 python -m pytest tests/models/weights/test_damaged_weight_files.py` tries more of them than
the suite.
"""

import collections
import os
import pathlib
import time

import jax
import numpy as np
import pytest

import models
from models.weights.conversion import wanted_shapes
from tests import peak_memory
from tests.models.weights.torch_files import Call, Name, pickled, save_old, write_zip

NETWORK = "resnet_small"
SHAPE = {"width": 2, "blocks": (1,), "small_images": True}
COUNT = int(os.environ.get("DAMAGED_WEIGHT_FILES", "30"))


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    net = models.build(NETWORK, num_classes=3, **SHAPE)
    init = lambda: net.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32), train=False)  # noqa: E731
    return models.to_torch(NETWORK, jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, "f"), jax.eval_shape(init)))


def contents(weights):
    """A checkpoint with what lies beside the weights."""
    return {
        "state_dict": collections.OrderedDict((f"module.{key}", array) for key, array in weights.items()),
        "args": Call(Name("argparse", "Namespace"), (), {"lr": 0.1}),
        "optimizer": {"state": {0: {"step": 7}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "best": np.float64(0.5),
    }


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with some of them replaced, left out, repeated, or exchanged with others."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 3)):
        start = int(rng.integers(len(changed)))
        length = int(rng.integers(1, 9))
        other = int(rng.integers(len(changed)))
        match rng.integers(6):
            case 0:
                changed[start] = int(rng.integers(256))
            case 1:
                changed[start : start + length] = rng.bytes(length)
            case 2:
                del changed[start : start + length]
            case 3:
                changed[start:start] = changed[other : other + length]
            case 4:
                changed[start] ^= 1 << int(rng.integers(8))
            case _:
                changed[start : start + length] = bytes([int(rng.choice(list(b"(.01NKMJItp}]q)hRb\x81\x85\x86\x87Q")))])
    return bytes(changed[: int(rng.integers(len(changed)))] if rng.integers(10) == 0 else changed) or b"\0"


def write_damaged(path: pathlib.Path, weights, rng: np.random.Generator) -> None:
    """One of the three formats; in a zip, the pickle alone or the whole file is damaged."""
    data, storages = pickled(contents(weights), protocol=int(rng.choice([2, 4])))
    match rng.integers(4):
        case 0:
            write_zip(path, damaged(data, rng), storages)
        case 1:
            path.write_bytes(damaged(write_zip(path, data, storages).read_bytes(), rng))
        case 2:
            # Damage where the names and shapes are, not in the values that fill most of the file.
            content = save_old(path, contents(weights)).read_bytes()
            path.write_bytes(damaged(content[: len(data) + 200], rng) + content[len(data) + 200 :])
        case _:
            models.write_safetensors(path, weights)
            content = path.read_bytes()
            end = 8 + int.from_bytes(content[:8], "little")
            path.write_bytes(damaged(content[:end], rng) + content[end:])


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_damaged_file_gives_its_weights_or_a_sentence(tmp_path, weights, seed):
    path = tmp_path / "w.pth"
    write_damaged(path, weights, np.random.default_rng(seed))
    start = time.process_time()
    with peak_memory.at_most(300_000_000):
        for wanted in (None, wanted_shapes(NETWORK, **SHAPE)):
            try:
                state_dict = models.read_weights(path, wanted=wanted)
                models.from_torch(NETWORK, state_dict, **SHAPE)
            except ValueError as error:
                sentence = str(error)
                assert sentence.startswith("weights: ")
                assert sentence.isprintable()
                assert len(sentence) < 500
    assert time.process_time() - start < 30
