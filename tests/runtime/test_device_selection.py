"""Any number of devices trains as one does: simulated ones, in a process of their own (`on_devices`)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Once

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result(once: Once, data_dir: Path) -> dict[str, Any]:
    def run(folder: Path) -> dict[str, Any]:
        flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=8"
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-W", "error", "tests/on_devices.py", str(folder), str(data_dir)]
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return once("devices", run)


@pytest.mark.parametrize("batch_size", ["16", "32", "48", "64"])
def test_one_step_on_two_four_and_eight_devices_is_that_on_one_for_every_batch_size_of_the_plan(result, batch_size):
    assert result["steps"].keys() == {"16", "32", "48", "64"}
    assert len(result["steps"][batch_size]) == 3
    assert max(result["steps"][batch_size]) < 1e-5


def test_a_plan_that_moves_from_four_devices_to_one_to_eight_ends_where_it_ends_on_one(result):
    alone, moved = result["runs"]["one"], result["runs"]["four, one, eight"]
    assert (alone["stops"], moved["stops"]) == (0, 2)
    np.testing.assert_allclose(moved["losses"], alone["losses"], rtol=1e-12)
    # Scores are computed in float32.
    np.testing.assert_allclose(moved["probabilities"], alone["probabilities"], atol=1e-6)


def test_gradient_noise_on_two_and_eight_devices_is_that_on_one(result):
    alone, *others = (np.array(result["noise"][count]) for count in ("1", "2", "8"))
    assert alone.shape == (2, 5)
    for other in others:
        np.testing.assert_allclose(other, alone, rtol=1e-3)


def test_the_gradient_of_a_kernel_summed_over_the_shares_of_a_batch_is_that_over_all_of_it(result):
    assert result["kernel_gradient"] < 1e-4


def test_gradients_and_statistics_are_summed_and_nothing_else_is_exchanged(result):
    for way in ("replicated", "streamed", "grouped", "patches"):
        assert result["exchanged"][way] == ["all-reduce of f32"]


def test_each_device_convolves_the_groups_of_its_own_images_as_accelerators_do(result):
    found = result["plain_groups"]
    assert found["apart"] < 1e-4
    assert found["exchanged"] == ["all-reduce of f32"]
    assert found["share"] < 1.1 / 8


def test_images_spread_over_the_devices_are_asked_for_by_row(result):
    assert result["exchanged"]["sharded"] == ["all-gather of s32", "all-reduce of f32", "all-reduce of u8"]


def test_a_device_of_eight_holds_an_eighth_of_the_batch_and_of_what_the_step_needs(result):
    arguments, temporary = result["arguments"], result["temporary"]
    # 64 uint8 images of 8 x 8 with three channels, and their int32 labels.
    assert arguments["1"] - arguments["8"] == 7 / 8 * 64 * (8 * 8 * 3 + 4)
    assert temporary["8"] < temporary["1"] / 4
