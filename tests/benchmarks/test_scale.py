"""What each of several devices gets of a step: counted by a fresh process for each number of devices."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import scale

import models

ROOT = Path(__file__).parents[2]
TINY = ["resnet18", "--width", "4", "--blocks", "1,1", "--small-images", "--image-size", "32", "--classes", "5"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_devices_share_the_work_and_sum_gradients_and_statistics():
    done = run(*TINY, "--batch-size", "16", "--devices", "1,4", "--json")
    assert done.returncode == 0, done.stderr
    one, four = json.loads(done.stdout)
    assert (one["devices"], one["collectives"], one["collective_bytes"]) == (1, 0, 0)
    assert one["flops_of_ideal"] == one["bytes_accessed_of_ideal"] == 1
    assert four["flops"] == pytest.approx(one["flops"] / 4, rel=0.02)
    assert four["flops_of_ideal"] == pytest.approx(4 * four["flops"] / one["flops"])
    # The optimiser's work is not divided.
    assert 1 < four["bytes_accessed_of_ideal"] < 2
    network = models.build("resnet18", num_classes=5, width=4, blocks=(1, 1), small_images=True)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    parameters, statistics = (
        sum(leaf.size for leaf in jax.tree.leaves(variables[part])) for part in ("params", "batch_stats")
    )
    assert four["gradient_bytes"] == one["gradient_bytes"] == 4 * parameters
    # Each gradient, each norm's mean and variance, and the loss cross once.
    assert four["collective_bytes"] == 4 * (parameters + statistics + 1)


def test_grouped_convolutions_are_divided_too():
    tiny = ["resnext50_32x4d", "--width", "16", "--blocks", "1,1", "--small-images", "--image-size", "32"]
    done = run(*tiny, "--classes", "5", "--batch-size", "16", "--devices", "1,4", "--json")
    assert done.returncode == 0, done.stderr
    _, four = json.loads(done.stdout)
    assert four["flops_of_ideal"] == pytest.approx(1, rel=0.02)
    assert four["collective_bytes"] < 1.1 * four["gradient_bytes"]


def test_collectives_are_counted_in_a_programs_text():
    text = """
      %a = f32[8,4]{1,0} all-reduce(%x), channel_id=1, to_apply=%sum
      %b = (bf16[3]{0}, s32[]) all-gather(%y, %z), dimensions={0}
      %c = f32[100]{0} add(%all-reduce.1, %x)
    """
    assert scale.collectives(text) == (2, 4 * 32 + 2 * 3 + 4)


def test_rows_are_measured_by_the_fewest_devices():
    counted = [
        {"network": name, "devices": devices, "flops": flops, "bytes_accessed": 1.0}
        for name, devices, flops in (("b", 4, 30.0), ("a", 2, 8.0), ("b", 2, 40.0))
    ]
    rows = scale.against_ideal(counted)
    assert [(row["network"], row["devices"], row["flops_of_ideal"]) for row in rows] == [
        ("a", 2, 1.0),
        ("b", 2, 1.0),
        ("b", 4, 1.5),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet51", "--devices", "1"], "did you mean resnet50"),
        (["resnet18", "--batch-size", "18"], "--batch-size 18: 4 devices cannot share it evenly"),
        (["resnet18", "--devices", "0"], "--devices"),
    ],
)
def test_bad_words_get_one_sentence(words, message):
    done = run(*words)
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
