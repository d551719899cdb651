"""`bench NETWORK...` measures training steps, keeps failures apart, and rejects invalid options."""

import json
from typing import Any

import jax
import numpy as np
import pytest

import launch
import models
from stepwise_jax.cli.bench import steps
from stepwise_jax.cli.bench.cases import BenchmarkCase, BenchmarkSettings, parse_batch_sizes, parse_precisions
from stepwise_jax.data.loaders import ResidentLoader, place_resident
from stepwise_jax.errors import InputError
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.preprocessing import make_preprocessing
from stepwise_jax.runtime import devices, sharding
from stepwise_jax.training.measurements.timing import Timer
from stepwise_jax.training.programs import step_functions
from stepwise_jax.training.programs.compilation import CompiledFunctions

TINY = ["--width", "4", "--blocks", "1,1", "--image-size", "32", "--small-images", "--classes", "5"]
QUICK = ["--seconds", "0.2", "--precisions", "float32"]
SETTINGS = BenchmarkSettings(image_size=32, classes=5, steps_per_call=1, seconds=0.2)


def tiny(batch_size: int, name: str = "resnet18") -> BenchmarkCase:
    network = models.build(name, num_classes=5, width=4, blocks=(1, 1), small_images=True)
    return BenchmarkCase(name, "float32", batch_size, network)


def silent(*_: Any) -> None:
    pass


def test_each_combination_has_its_row(capsys):
    words = ["bench", "resnet18", *TINY, "--seconds", "0.2", "--batch-sizes", "4,8", "--json"]
    assert launch.main(words) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    rows = document["rows"]
    combinations = [(precision, size) for precision in ("float32", "bfloat16") for size in (4, 8)]
    assert [(row["precision"], row["batch_size"]) for row in rows] == combinations
    assert (document["devices"], document["image_size"], document["steps_per_call"]) == (1, 32, 1)
    assert document["versions"]["jax"] == jax.__version__
    for row in rows:
        for way in ("", "_alone"):
            speed, milliseconds = row[f"images_per_second{way}"], row[f"milliseconds{way}"]
            assert speed == pytest.approx(1000 * row["batch_size"] / milliseconds)
        assert row["steps"] >= row["turns"] >= 1
        assert row["of_peak"] is None
        assert row["compile_seconds"] > 0
        assert row["peak_bytes_from"] == "program"
    assert rows[1]["flops"] == pytest.approx(2 * rows[0]["flops"], rel=0.05)
    assert rows[0]["peak_bytes"] < rows[1]["peak_bytes"]
    assert "compiling resnet18, bfloat16, batch 8" in err


def test_the_table_shows_unknown_values(capsys):
    assert launch.main(["bench", "resnet18", *TINY, *QUICK, "--batch-sizes", "4"]) == 0
    out = capsys.readouterr().out
    for text in ("resnet18", "float32", "images/s alone", "unknown", "32 x 32", f"jax {jax.__version__}"):
        assert text in out


def test_a_combination_that_fails_is_reported_and_the_others_continue(capsys, monkeypatch):
    original = step_functions.compile_train_call

    def compile_train_call(function: Any, state: Any, examples: Any, inputs: Any) -> Any:
        if inputs.shape[1] == 8:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes.\nand more")
        return original(function, state, examples, inputs)

    monkeypatch.setattr(step_functions, "compile_train_call", compile_train_call)
    assert launch.main(["bench", "resnet18", *TINY, *QUICK, "--batch-sizes", "8,4"]) == 0
    out = capsys.readouterr().out
    message = "resnet18, float32, batch 8 failed: out of memory: RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes."
    assert message in out
    assert "and more" not in out


def test_a_turn_that_fails_ends_its_case_alone(monkeypatch):
    rows = steps.measure([tiny(4)], SETTINGS, silent)["rows"]
    assert "error" not in rows[0]

    def measure_turn(self: Any) -> None:
        raise ValueError("")

    monkeypatch.setattr(steps._CaseTimer, "measure_turn", measure_turn)
    (row,) = steps.measure([tiny(4)], SETTINGS, silent)["rows"]
    assert row == {**row, "error": "ValueError"}
    assert "images_per_second" not in row


def test_nothing_measured_is_a_failure(capsys, monkeypatch):
    monkeypatch.setattr(devices, "available_host_memory", lambda: 1000)
    assert launch.main(["bench", "resnet18", *TINY, *QUICK, "--batch-sizes", "4"]) == 1
    out, err = capsys.readouterr()
    assert "out of memory: a step needs 0.0 GiB, and 0.0 GiB are available" in out
    assert "none of the combinations could be measured" in err


def test_the_measured_call_is_that_of_a_run():
    """`CompiledFunctions` and the measured call turn the same state and rows into the same bits."""
    case, mesh, optimizer = tiny(4), sharding.make_mesh(), make_optimizer(OptimizerConfig())
    random, preprocessing = np.random.default_rng(0), make_preprocessing("imagenet", 32)
    images = random.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    loader = ResidentLoader(place_resident(images, np.arange(8) % 5, mesh, sharded=False), mesh)
    inputs = jax.device_put(np.array([[3, 1, 4, 6]], np.int32), sharding.split_along(mesh, 1))
    functions = CompiledFunctions(case.network, optimizer, preprocessing, mesh, Timer(), silent)
    function = step_functions.jit_train_call(case.network, optimizer, preprocessing, mesh)
    compiled = step_functions.compile_train_call(
        function,
        step_functions.random_state(case.network, optimizer, 32, mesh),
        loader.examples,
        loader.abstract_inputs(1, 4),
    )
    another = step_functions.jit_train_call(case.network, optimizer, preprocessing, mesh)
    again = step_functions.compile_train_call(
        another,
        step_functions.random_state(case.network, optimizer, 32, mesh),
        loader.examples,
        loader.abstract_inputs(1, 4),
    )
    # The tests share a compilation cache (conftest.py).
    assert again.cached
    states = [
        call(step_functions.random_state(case.network, optimizer, 32, mesh), loader.examples, inputs)
        for call in (functions.train, compiled.call)
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_flops_are_those_of_the_products():
    """Three times the multiplications and additions of the forward pass, twice in the first layer, and little else."""
    (row,) = steps.measure([tiny(4)], SETTINGS, silent)["rows"]
    # For one image: the stem; then each stage's block of two convolutions and, where it shrinks, a 1x1 shortcut.
    stem = 32 * 32 * 9 * 3 * 4
    stages = 32 * 32 * 9 * 2 * 4 * 4 + 16 * 16 * (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8)
    products = 2 * 4 * (2 * stem + 3 * (stages + 8 * 5))
    # Borders save up to a fifth of a product; norms and the optimiser add up to half to products this small.
    assert 0.8 * products < row["flops"] < 1.6 * products


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet51"], "did you mean resnet50"),
        (["resnet18", "--batch-sizes", "0"], "--batch-sizes is '0': it must be positive whole numbers"),
        (["resnet18", "--batch-sizes", "24,x"], "--batch-sizes is '24,x'"),
        (["resnet18", "--batch-sizes", "1"], "at least 2"),
        (["resnet18", "--precisions", "float16"], "--precisions is 'float16': it must be some of float32, bfloat16"),
        (["resnet18", "--blocks", "1,1,1,1,1"], "--blocks is '1,1,1,1,1': it must be one to four positive numbers"),
        (["resnet18", "--width", "1"], "--width is 1: it must be at least 2"),
        (["resnet18", "--classes", "1"], "--classes is 1: it must be at least 2"),
        (["resnet18", "--image-size", "0"], "--image-size is 0: it must be at least 1"),
        (["resnet18", "--image-size", "16"], "16x16 pixels are too few"),
        (["resnet18", "--seconds", "0"], "--seconds is 0.0: it must be a positive number"),
        (["resnet18", "--steps-per-call", "-1"], "--steps-per-call is -1"),
        (["resnet18", "--epochs", "3"], "--epochs is an option of bench --data, not of NETWORK..."),
        (["resnet18", "--data"], "NETWORK..., or --data"),
        (["--data", "--seconds", "3"], "--seconds is an option of bench NETWORK..., not of --data"),
    ],
)
def test_invalid_options_get_one_sentence(capsys, words, message):
    assert launch.main(["bench", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_batch_must_divide_over_the_devices():
    assert parse_batch_sizes("16,8,16", 4) == (16, 8)
    with pytest.raises(InputError, match="has 26: 4 devices share a batch evenly, so it must be 24 or 28"):
        parse_batch_sizes("24,26", 4)


def test_precisions_keep_their_order_without_repeats():
    assert parse_precisions("bfloat16,float32,bfloat16") == ("bfloat16", "float32")


@pytest.mark.parametrize(
    ("kind", "bfloat16", "float32"),
    [
        ("NVIDIA H200", 989e12, 494e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 494e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 156e12),
        ("NVIDIA L4", 121e12, 60e12),
        ("Tesla T4", None, 8.1e12),
        ("TPU v5 lite", 197e12, 197e12),
        ("TPU v5p", 459e12, 459e12),
        ("TPU v6 lite", 918e12, 918e12),
    ],
)
def test_published_peaks_are_found_by_the_kind_of_device(kind, bfloat16, float32):
    peak = devices.find_peak(kind)
    assert peak is not None
    assert (peak.flops("bfloat16"), peak.flops("float32")) == (bfloat16, float32)


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA L40S", "TPU v4 lite", "NVIDIA GeForce RTX 4090"])
def test_other_devices_have_no_peak(kind):
    assert devices.find_peak(kind) is None


def test_the_share_of_a_known_peak(monkeypatch):
    peak = devices.PeakPerformance(1e12, 2e12, 1e11)
    monkeypatch.setattr(devices, "find_peak", lambda kind: peak)
    (row,) = steps.measure([tiny(4)], SETTINGS, silent)["rows"]
    assert row["of_peak"] == pytest.approx(row["flops"] / (row["milliseconds"] / 1000) / 2e12)


def test_the_peak_of_a_device_counts_if_it_rose(monkeypatch):
    readings = iter([(100, 300), *[(250, 900)] * 3])
    monkeypatch.setattr(devices, "device_memory_use", lambda: next(readings))
    before = devices.device_memory_use()
    assert devices.peak_memory_since(before) == 800
    assert devices.peak_memory_since((250, 900)) is None
    assert devices.peak_memory_since(None) is None
