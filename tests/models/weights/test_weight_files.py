"""Weight files: what PyTorch wrote is read as it is, whatever lies beside it, and nothing is executed."""

import argparse
import collections
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

import models
from tests import peak_memory
from tests.models.weights.torch_files import Call, Name, pickled, save, save_old, write_zip

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


WEIGHTS = {"conv.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "conv.bias": np.zeros(3, np.float32)}
OTHERS = {"conv.weight": np.ones((3, 4), np.float32), "conv.bias": np.ones(3, np.float32)}
WANTED = {"conv.weight": (3, 4), "conv.bias": (3,)}
BESIDE = {
    "args": argparse.Namespace(lr=0.1, folder=pathlib.PurePosixPath("/data")),
    "best": np.float64(71.5),
    "history": collections.defaultdict(list, {"loss": [1.0, 0.5]}),
    "seen": {1, 2},
    "frozen": frozenset({3}),
    "dtype": Name("torch", "float32"),
    "device": Call(Name("torch", "device"), ("cuda", 0)),
    "size": Call(Name("torch", "Size"), ((3, 4),)),
    "config": Call(Name("mine.config", "Config"), (), {"depth": 18}),
    "bytes": bytearray(b"abc"),
    "epoch": 90,
}


def under(prefix, arrays):
    return {prefix + key: array for key, array in arrays.items()}


@pytest.mark.parametrize("write", [save, save_old, lambda path, content: save(path, content, protocol=4)])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": under("module.", WEIGHTS), **BESIDE},
        {"model": under("module.model.backbone.", WEIGHTS), **BESIDE},
        {"a": {"model_state": {"state_dict_ema": under("_orig_mod.encoder_q.module.", WEIGHTS)}}, **BESIDE},
        {"n_averaged": np.asarray(5), **under("module.", WEIGHTS)},
        {"net": collections.defaultdict(None, WEIGHTS)},
        {"net": collections.OrderedDict(WEIGHTS)},
        {"model": WEIGHTS, "optimizer": {"state": {0: {"exp_avg": np.ones(3, np.float32)}}, "param_groups": []}},
    ],
)
def test_weights_are_found_however_they_are_wrapped(tmp_path, write, known, content):
    found = models.read_weights(write(tmp_path / "w.pth", content), wanted=WANTED if known else None)
    assert {key for key in found if key != "n_averaged"} == set(WEIGHTS)
    for key, array in WEIGHTS.items():
        np.testing.assert_array_equal(found[key], array)


def test_any_prefix_is_removed_that_makes_the_names_fit(tmp_path):
    content = {**under("student.tower.", WEIGHTS), "student.head.weight": np.ones((2, 2), np.float32)}
    found = models.read_weights(save(tmp_path / "w.pth", content), wanted=WANTED)
    assert set(found) == set(WEIGHTS)


SEVERAL = [
    ({"model": WEIGHTS, "model_ema": OTHERS}, "model, model_ema", "model_ema"),
    (
        {"student": under("module.backbone.", WEIGHTS), "teacher": under("backbone.", OTHERS)},
        "student.module.backbone, teacher.backbone",
        "teacher",
    ),
    (
        {"state_dict": under("module.encoder_q.", WEIGHTS) | under("module.encoder_k.", OTHERS)},
        "state_dict.module.encoder_q, state_dict.module.encoder_k",
        "encoder_k",
    ),
    ({**WEIGHTS, "ema": {"module": OTHERS}}, r"\., ema\.module", "ema"),
]


@pytest.mark.parametrize(("content", "names", "key"), SEVERAL)
def test_one_of_several_networks_is_chosen_by_its_key(tmp_path, content, names, key):
    path = save(tmp_path / "w.pth", content)
    with pytest.raises(ValueError, match=f"several networks: {names}; choose one with the option --key"):
        models.read_weights(path, wanted=WANTED)
    found = models.read_weights(path, wanted=WANTED, key=key)
    np.testing.assert_array_equal(found["conv.weight"], OTHERS["conv.weight"])
    with pytest.raises(ValueError, match=f"no weights under the key nothing, but under {names}"):
        models.read_weights(path, wanted=WANTED, key="nothing")


def test_the_same_weights_in_two_places_are_one(tmp_path):
    path = save(tmp_path / "w.pth", {"model": WEIGHTS, "state_dict": dict(WEIGHTS)})
    assert set(models.read_weights(path, wanted=WANTED)) == set(WEIGHTS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ((WEIGHTS, 90), "holds a Python tuple of 2 parts, not a state_dict; in PyTorch, save the state_dict"),
        ([WEIGHTS], "holds a Python list of 1 parts, not a state_dict"),
        (7, "holds a Python int, not a state_dict"),
        (WEIGHTS["conv.weight"], r"holds one array \[3, 4\], not a state_dict"),
        (Call(Name("mine", "Net"), (), {"layers": 3}), "is refused: its pickle is a mine.Net, which only its own code"),
        (
            {"epoch": 3, "model": Call(Name("mine", "Net"), ())},
            r"holds no state_dict: epoch \(int\), model \(mine.Net\); in",
        ),
        ({"x\n\x1b": 1}, r"holds no state_dict: x\?\? \(int\)"),
    ],
)
def test_what_is_no_state_dict_is_named(tmp_path, content, sentence):
    for wanted in (None, WANTED):
        with pytest.raises(ValueError, match=rf"w\.pth {sentence}"):
            models.read_weights(save(tmp_path / "w.pth", content), wanted=wanted)


def test_a_placeholder_takes_everything_and_keeps_nothing(tmp_path):
    """Calls, states, items, attributes and entries of an unknown class, by each opcode that makes them."""
    unknown = b"cmine\nThing\n"
    makes = [b")R", b")\x81", b")}\x92", b"}b", b"K\x01K\x02s", b"(K\x01K\x02u", b"K\x01a", b"(K\x01e", b"(K\x01\x90"]
    data = b"\x80\x04" + unknown + b"".join(makes) + b"0(imine\nThing\n0(" + unknown + b"o."
    with pytest.raises(ValueError, match=r"its pickle is a mine\.Thing, which only its own code could open"):
        models.read_weights(write_zip(tmp_path / "w.pth", data))


def memoised(content: bytes, *opcodes: bytes) -> bytes:
    return pickle_of(content + b"q\x00" + b"".join(opcodes))


LIST = b"](" + b"K\x01N\x86" * 200_000 + b"e"
TUPLE = b"(" + b"N" * 200_000 + b"t"
BOMBS = {
    "a list made a size many times": memoised(LIST, b"ctorch\nSize\nq\x01", b"h\x01h\x00\x85R" * 200_000),
    "a list made a mapping many times": memoised(
        LIST, b"ccollections\nOrderedDict\nq\x01", b"h\x01h\x00\x85R" * 200_000
    ),
    "a tuple of arguments many times": memoised(TUPLE, b"cmine\nThing\nq\x01", b"h\x01h\x00R" * 200_000),
    "a tuple as a storage many times": memoised(TUPLE, b"h\x00Q" * 200_000),
    "a name that doubles": memoised(b"X\x01\x00\x00\x00a", b"h\x00h\x00\x86q\x00" * 64, b"(" + b"h\x00" * 5 + b"tQ"),
    "a deep key": memoised(b"N", b"\x85" * 300_000, b"q\x01}h\x01Ns"),
    "dicts that double": memoised(b"}", b"}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00uq\x00" * 64),
    "a dict in itself": memoised(b"}", b"X\x01\x00\x00\x00ah\x00s"),
    "a byte array": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "a long text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "more than tensors need": pickle_of(b"]" * 2**23),
}


def test_a_small_pickle_takes_neither_memory_nor_time(tmp_path):
    """In a process of its own: some of these would end it. Its peak in kB is Linux's own count."""
    code = (
        "import pathlib, sys, time, models\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.pth')):\n"
        "    start = time.process_time()\n"
        "    try: models.read_weights(path, wanted={'a': (1,)})\n"
        "    except ValueError as error: print(time.process_time() - start, error)\n"
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    for name, data in BOMBS.items():
        write_zip(tmp_path / f"{name}.pth", data)
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, cwd=GOLDEN.parents[1], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, (done.stdout, done.stderr[-500:])
    *sentences, memory = done.stdout.splitlines()
    for name, sentence in zip(sorted(BOMBS), sentences, strict=True):
        assert f"{name}.pth" in sentence
        assert float(sentence.split()[0]) < 30, sentence
    assert int(memory) < 1_000_000


def test_a_tensor_cannot_be_larger_than_its_values(tmp_path):
    """A stride of zero would make terabytes of one value."""
    data, storages = pickled({"a": np.ones(1, np.float32)})
    one = b"K\x01\x85"
    assert data.count(one) == 2
    shape, strides = b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85", b"K\x00\x85"
    data = data.replace(one, shape, 1).replace(one, strides, 1)
    with pytest.raises(ValueError, match=r"float32\[1099511627776\] reaches beyond its 1 values"):
        models.read_weights(write_zip(tmp_path / "w.pth", data, storages))


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


def test_a_pickle_cannot_ask_for_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        # Remembers nothing as its 2^30th object: room for all before it would be 8 GB.
        archive.writestr("archive/data.pkl", pickle_of(b"Nr\xff\xff\xff\x3f0}"))
    with peak_memory.at_most(20_000_000), pytest.raises(ValueError, match="holds no state_dict"):
        models.read_weights(tmp_path / "bad.pth")


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
