"""Weight files are read as PyTorch and safetensors wrote them, and damaged or foreign ones get a sentence."""

import json
import pathlib
import pickle
import struct

import jax.numpy as jnp
import numpy as np
import pytest

import models
from tests import peak_memory
from tests.models.weights.torch_files import pickle_of, pickled, write_zip

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("name", ["tiny.pth", "tiny_old.pth", "tiny_nested.pth", "tiny.safetensors"])
def test_what_pytorch_wrote_is_read(name):
    arrays = models.read_weights(GOLDEN / name)
    expected = {
        "parameter": np.arange(6, dtype=np.float32).reshape(2, 3),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "half": np.arange(4, dtype=np.float16),
        "bfloat16": np.arange(4).astype(jnp.bfloat16),
        "count": np.asarray(7),
        "first": np.arange(4, dtype=np.float32),
        "second": np.arange(4, 12, dtype=np.float32).reshape(2, 4),
    }
    assert set(arrays) == set(expected)
    for key, array in expected.items():
        assert arrays[key].dtype == array.dtype
        np.testing.assert_array_equal(arrays[key], array)


def test_safetensors_round_trip(tmp_path):
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a": np.ones(3, jnp.bfloat16), "c": np.asarray(1)}
    models.write_safetensors(tmp_path / "w.safetensors", arrays, network="resnet18")
    again = models.read_weights(tmp_path / "w.safetensors")
    assert set(again) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(again[key], array)


def test_tensors_of_one_storage_share_it(tmp_path):
    """PyTorch writes views of one buffer; each must not read the buffer again."""
    data, storages = pickled({"a": np.ones(1_000_000, np.float32)})
    tensor = data[data.index(b"ctorch._utils") : data.rindex(b"s.")]
    entries = (b"X\x04\x00\x00\x00%04d" % number + b"h\xff" for number in range(400))
    data = pickle_of(b"}" + b"X\x01\x00\x00\x00a" + tensor + b"q\xffs" + b"".join(entry + b"s" for entry in entries))
    path = write_zip(tmp_path / "w.pth", data, storages)
    with peak_memory.at_most(40_000_000):
        assert len(models.read_weights(path)) == 401


def test_torchscript_is_named(tmp_path):
    path = write_zip(
        tmp_path / "w.pth", pickle_of(b"c__torch__.torchvision\nResNet\n)\x81"), (), **{"constants.pkl": b""}
    )
    with pytest.raises(ValueError, match=r"w\.pth is a TorchScript program, not weights; save torch\.jit\.load"):
        models.read_weights(path)


@pytest.mark.parametrize("kind", ["ComplexFloatStorage", "QInt8Storage"])
def test_a_tensor_of_a_type_that_numpy_lacks_is_named(tmp_path, kind):
    data, storages = pickled({"a": np.ones(1, np.float32)})
    path = write_zip(tmp_path / "w.pth", data.replace(b"FloatStorage", kind.encode()), storages)
    with pytest.raises(ValueError, match=rf"w\.pth holds a tensor as torch\.{kind}, which cannot be read"):
        models.read_weights(path)


def safetensors(header: dict, data: bytes = b"\0" * 16) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hello, these are no weights", "neither a .safetensors file nor one of torch.save"),
        (b"", "neither"),
        (safetensors({"a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 16]}}), "16 bytes of a at 0 are no"),
        (safetensors({"a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}), "32 bytes of a at 0 are no"),
        (safetensors({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}), "holds a as F4"),
        (safetensors({}), "holds no state_dict"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 102\n",
            "is a Git LFS pointer.*git lfs pull",
        ),
        (b"<!DOCTYPE html>\n<html><head>", "is a page of a web site"),
        (b"\n <html>", "is a page of a web site"),
        ((GOLDEN / "tiny.pth").read_bytes()[:700], "is damaged"),
        ((GOLDEN / "tiny_old.pth").read_bytes()[:-5], "is damaged"),
        (pickle.dumps({"a": 1}), "a pickle, but not one of torch.save"),
    ],
)
def test_a_damaged_or_foreign_file_gets_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"weights.pth.*{sentence}"):
        models.read_weights(path)


def test_a_missing_file_gets_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"none\.pth cannot be read \(No such file"):
        models.read_weights(tmp_path / "none.pth")
