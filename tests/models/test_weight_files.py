"""Weight files: what PyTorch wrote is read as it is, and nothing else is."""

import json
import os
import pathlib
import pickle
import resource
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

import models

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


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


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("was_executed",)


@pytest.mark.parametrize("form", ["zip", "old"])
def test_a_malicious_pickle_is_refused(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    payload = pickle.dumps({"state_dict": Malicious()}, protocol=2)
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    else:
        head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in head) + payload)
    with pytest.raises(ValueError, match=r"bad\.pth is refused: its pickle names \w+\.mkdir.*tensors only"):
        models.read_weights(path)
    assert not (tmp_path / "was_executed").exists()


def pickle_of(opcodes: bytes) -> bytes:
    return b"\x80\x02" + opcodes + b"."


@pytest.mark.parametrize(
    "opcodes",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x05\x00\x00\x00_makeNs\x86b",  # sets an attribute of what it was given
        b"cbuiltins\neval\n",
        b"ctorch._utils\n_rebuild_tensor_v2.__init__\n",
        b"ctorch\nload\n",
    ],
)
def test_a_pickle_cannot_change_or_reach_beyond_what_it_is_given(tmp_path, opcodes):
    path = tmp_path / "bad.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_of(opcodes))
    with pytest.raises(ValueError, match=r"bad\.pth is (refused|damaged)"):
        models.read_weights(path)
    assert models.read_weights(GOLDEN / "tiny.pth")["count"] == 7


def test_a_pickle_cannot_ask_for_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        # Remembers nothing as its 2^30th object: room for all before it would be 8 GB.
        archive.writestr("archive/data.pkl", pickle_of(b"Nr\xff\xff\xff\x3f0}"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="holds no state_dict"):
        models.read_weights(tmp_path / "bad.pth")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000


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
