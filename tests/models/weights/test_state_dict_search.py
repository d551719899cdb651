"""A network's weights are found wherever they lie in a file, and what is no state_dict is named."""

import argparse
import collections
import pathlib

import numpy as np
import pytest

import models
from tests.models.weights.torch_files import Call, Name, save, save_old

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
