"""A pickle executes nothing, reaches nothing beyond its tensors, and takes neither memory nor time."""

import os
import pathlib
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import models
from tests import peak_memory
from tests.models.weights.torch_files import pickle_of, pickled, write_zip

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"


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


def test_a_pickle_cannot_ask_for_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as archive:
        # Remembers nothing as its 2^30th object: room for all before it would be 8 GB.
        archive.writestr("archive/data.pkl", pickle_of(b"Nr\xff\xff\xff\x3f0}"))
    with peak_memory.at_most(20_000_000), pytest.raises(ValueError, match="holds no state_dict"):
        models.read_weights(tmp_path / "bad.pth")
