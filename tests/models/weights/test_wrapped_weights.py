"""Each wrapper and each prefix that published checkpoints have, alone and together, and a run's start from one."""

import itertools

import numpy as np
import pytest

import launch
import models
from tests.models.test_initial_weights import NETWORK, state_dict
from tests.models.weights.test_state_dict_search import BESIDE, WANTED, WEIGHTS, under
from tests.models.weights.torch_files import save

WRAPPERS = ("state_dict", "model", "net", "module", "model_state", "state_dict_ema", "ema", "teacher", "student")
PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.", "encoder_q.")
ORDERS = [*itertools.permutations(PREFIXES, 1), *itertools.permutations(PREFIXES, 2), PREFIXES]


def check(path, **options):
    found = models.read_weights(path, wanted=WANTED, **options)
    assert found.keys() == WEIGHTS.keys()
    for key, array in WEIGHTS.items():
        np.testing.assert_array_equal(found[key], array)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_each_wrapper_is_opened_alone_and_in_another(tmp_path, wrapper):
    check(save(tmp_path / "w.pth", {wrapper: WEIGHTS, **BESIDE}))
    for outer in WRAPPERS:
        check(save(tmp_path / "w.pth", {"epoch": 3, outer: {wrapper: under("module.", WEIGHTS)}}))


@pytest.mark.parametrize(
    "prefixes", [*itertools.permutations(PREFIXES, 1), *itertools.permutations(PREFIXES, 2), PREFIXES]
)
def test_each_prefix_is_removed_in_any_order(tmp_path, prefixes):
    check(save(tmp_path / "w.pth", {"state_dict": under("".join(prefixes), WEIGHTS)}))


@pytest.mark.parametrize("wrapper", WRAPPERS[1:])
def test_each_wrapper_is_a_key(tmp_path, wrapper):
    others = {name: np.ones_like(array) for name, array in WEIGHTS.items()}
    check(save(tmp_path / "w.pth", {"state_dict": others, wrapper: under("module.", WEIGHTS)}), key=wrapper)


def test_a_checkpoint_as_trainers_write_it_is_imported(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = state_dict(small_images=False, num_classes=3)
    content = {**BESIDE, "state_dict": under("_orig_mod.module.backbone.", arrays), "n_averaged": np.asarray(5)}
    save(tmp_path / "theirs.pth", content)
    assert launch.main(["import-weights", NETWORK, "theirs.pth"]) == 0
    assert "a head of 3 classes" in capsys.readouterr().out
    kept = models.read_weights(f"{NETWORK}.safetensors")
    assert kept.keys() == arrays.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(kept[key], array)
