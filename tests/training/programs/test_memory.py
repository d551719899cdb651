"""Memory that is not enough, told; and how much will be needed, before anything runs."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Recorder, TinyNet
from flax import linen as nn

import launch
from stepwise_jax.errors import DeviceMemoryError
from stepwise_jax.experiment.serialization import override_fields
from stepwise_jax.plans import planning
from stepwise_jax.training import failures
from stepwise_jax.training.programs import footprint
from stepwise_jax.training.programs.compilation import CompiledFunctions

MESSAGES = [
    ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 21474836480 bytes.\nBuffer ...", 20 << 30),
    ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 25.00GiB.", 25 << 30),
    ("RESOURCE_EXHAUSTED: Out of memory allocating 274877906944 bytes.", 256 << 30),
    ("RESOURCE_EXHAUSTED: Failed to allocate request for 2.0GiB (2147483648B) on device ordinal 0", 2 << 30),
    ("RESOURCE_EXHAUSTED: Allocator (GPU_0_bfc) ran out of memory trying to allocate 512.0KiB", 512 << 10),
    ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 16.50G of "
     "15.48G hbm. Exceeded hbm capacity by 1.02G.", int(16.5 * 2**30)),
    ("RESOURCE_EXHAUSTED: no number in here", None),
]  # fmt: skip


@pytest.mark.parametrize(("message", "asked"), MESSAGES)
def test_the_bytes_asked_for_are_read_from_xlas_message(message, asked):
    assert failures.requested_bytes(message) == asked


class Greedy(nn.Module):
    """A network that asks for more than any machine can address, from batches of 64 on."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = TinyNet()(images, train)
        if train and len(images) >= 64:
            column = jnp.arange(1 << 24, dtype=jnp.float32) * x[0, 0]
            # 2^50 bytes, which sorting keeps from being computed piece by piece.
            x = x + jnp.sort(jax.lax.stop_gradient(column[:, None] - column[None]), axis=0)[0, 0]
        return x


def test_a_device_without_memory_is_reported_with_stage_batch_bytes_and_what_to_change(train, tmp_path):
    """A real one: XLA's own allocation fails in the compiled step of the second stage."""
    display = Recorder()
    with pytest.raises(DeviceMemoryError) as caught:
        train(tmp_path / "run", network=Greedy(), display=display)
    message = str(caught.value)
    assert message.startswith("the device has no memory left in stage 2 (50%), batch size 64 (")
    assert "bytes requested): reduce plan.batch_size" in message
    assert "\n" not in message
    asked = int(message.split("(")[2].split(" ")[0].replace(",", ""))
    assert asked >= 1 << 50
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["8"], "what is saved is kept"


def test_other_errors_of_a_step_are_not_taken_for_it(train, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("INTERNAL: something else")

    monkeypatch.setattr(CompiledFunctions, "train", fail)
    with pytest.raises(RuntimeError, match="something else"):
        train(tmp_path / "run")


@pytest.mark.parametrize("wanted", ["resident", "streamed"])
def test_footprints_are_those_of_the_programs_that_a_run_compiles(train, tmp_path, experiment, monkeypatch, wanted):
    found: dict[int, Any] = {}
    before = CompiledFunctions._get_compiled

    def noting(self: CompiledFunctions, name: str, function: Any, *args: Any, **options: Any) -> Any:
        program = before(self, name, function, *args, **options)
        if name == "train":
            batch = jax.tree.leaves(args[-1])[0].shape[1]
            found[batch] = program.memory_analysis()
        return program

    monkeypatch.setattr(CompiledFunctions, "_get_compiled", noting)
    fields = {"data.delivery": wanted, "steps_per_call": 1}
    train(tmp_path / "run", **fields)
    config = override_fields(experiment, fields)
    planned = planning.make_plan(config.plan, 1437, config.optimizer)
    document = footprint.measure(config, planned, TinyNet())
    assert [(each["batch_size"], each["stages"]) for each in document["batches"]] == [
        (32, ("10%", "O")),
        (64, ("50%",)),
    ]
    for each in document["batches"]:
        real = found[each["batch_size"]]
        assert each["arguments"] == real.argument_size_in_bytes
        assert each["output"] == real.output_size_in_bytes
        assert each["temporaries"] == real.temp_size_in_bytes > 0
        assert each["donated"] == real.alias_size_in_bytes > 0
    images = 0 if wanted == "streamed" else (1437 + 360) * (8 * 8 + 4)
    assert document["resident_images"] == images


def test_the_state_is_counted_by_hand(experiment):
    config = override_fields(experiment, {"steps_per_call": 1})
    document = footprint.measure(config, planning.make_plan(config.plan, 1437, config.optimizer), TinyNet())
    parameters = 3 * 3 * 3 * 8 + 8 + 2 * 8 + (4 * 4 * 8) * 10 + 10
    # Parameters and their momentum, running mean and variance, the step, and three hyperparameters with a counter.
    known = 4 * (2 * parameters + 2 * 8 + 1 + 3)
    assert known <= document["state"] <= known + 16


def test_plan_memory_needs_no_data(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing here"))
    words = ["plan", "configs/digits.py", "--model.width", "4", "--model.blocks", "1"]
    words += ["--data.image_size", "8", "--plan.fractions", "1", "--plan.batch_multipliers", "1"]
    assert launch.main([*words, "--memory"]) == 0
    shown = capsys.readouterr().out
    assert "Memory of one device, by batch size (MiB)" in shown
    assert "% of the device's" in shown
    assert launch.main([*words, "--memory", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["memory"]
    assert document["device_memory"] > document["batches"][0]["total"] > document["state"] > 0
    assert not (tmp_path / "nothing here").exists()
    assert np.isfinite(document["batches"][0]["temporaries"])
