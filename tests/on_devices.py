"""What tests of many devices run in a process of its own, with eight simulated ones; prints one JSON document."""

import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from conftest import Recorder
from jax.sharding import Mesh

import models
from models import convolution, row_products
from models.resnet import BasicBlock, ResNet
from stepwise_jax.data import datasets
from stepwise_jax.data.loaders import Loader, ResidentLoader, StreamingLoader, place_resident
from stepwise_jax.errors import InterruptedRunError
from stepwise_jax.experiment.config import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    ExperimentConfig,
    OptimizerConfig,
    PlanConfig,
)
from stepwise_jax.functional.optimizers import make_optimizer, set_hyperparameters
from stepwise_jax.functional.preprocessing import Preprocessing
from stepwise_jax.functional.state import TrainState, learned_state, make_initializer
from stepwise_jax.plans import planning
from stepwise_jax.plans.stage import Stage
from stepwise_jax.runtime import sharding
from stepwise_jax.training import loop
from stepwise_jax.training.measurements.noise import measure_noise
from stepwise_jax.training.measurements.timing import Timer
from stepwise_jax.training.programs.compilation import PLAIN, CompiledFunctions
from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.records import EpochRecord

SIDE, EXAMPLES = 8, 192
PLAN = PlanConfig(batch_size=16, learning_rate=0.05, epochs_per_stage=1, decay_every=1)
COUNTS = (1, 2, 4, 8)


def network(dtype: Any = "float32") -> ResNet:
    return ResNet(BasicBlock, blocks=(1,), num_classes=10, width=4, small_images=True, dtype=dtype)


def compiled_on(mesh: Mesh, net: Any) -> CompiledFunctions:
    preprocessing = Preprocessing(SIDE, (0.5,) * 3, (0.3,) * 3)
    return CompiledFunctions(net, make_optimizer(OptimizerConfig()), preprocessing, mesh, Timer(), lambda _: None)


def first_state(net: Any) -> TrainState:
    quick = {"xla_backend_optimization_level": 0}
    optimizer = make_optimizer(OptimizerConfig())
    state = jax.jit(make_initializer(net, optimizer, SIDE), compiler_options=quick)(jax.random.key(0))
    return jax.device_get(state._replace(opt_state=set_hyperparameters(state.opt_state, learning_rate=0.1)))


def loader_on(mesh: Mesh, kind: str) -> Loader:
    random = np.random.default_rng(0)
    # Each device's share of a batch differs in brightness: statistics over a share would be far off.
    images = random.integers(0, 64, (EXAMPLES, SIDE, SIDE, 3), dtype=np.uint8)
    images += (np.arange(EXAMPLES) % 190).astype(np.uint8)[:, None, None, None]
    labels = random.integers(0, 10, EXAMPLES)
    if kind == "streamed":
        return StreamingLoader(lambda rows: images[rows], labels, (SIDE, SIDE, 3), mesh, workers=1)
    return ResidentLoader(place_resident(images, labels, mesh, sharded=kind == "sharded"), mesh)


def furthest(ours: Any, theirs: Any) -> float:
    far = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()), ours, theirs)
    return max(jax.tree.leaves(far))


def one_step(state: TrainState, batch_size: int, count: int) -> TrainState:
    mesh = sharding.make_mesh(jax.devices()[:count])
    loader, rows = loader_on(mesh, "replicated"), np.arange(batch_size, dtype=np.int32)[None]
    placed = sharding.place(state, sharding.replicated(mesh))
    (inputs,) = loader.stacked_batches(rows, [[0]])
    after, _ = compiled_on(mesh, network()).train(placed, loader.examples, inputs)
    return jax.device_get(after)


def steps() -> dict[str, Any]:
    """How far one step on several devices leads from where it leads on one, by batch size and number of devices."""
    state, sizes = (
        first_state(network()),
        {stage.batch_size for stage in planning.make_plan(PLAN, 400)},
    )
    apart = {}
    for size in sorted(sizes):
        alone, *others = (one_step(state, size, count) for count in COUNTS)
        apart[size] = [furthest(learned_state(other), learned_state(alone)) for other in others]
        assert furthest(learned_state(alone), learned_state(state)) > 1e-2, "the step changed nothing"
    return apart


def measured_noise(count: int, kind: str) -> list[list[float]]:
    """The estimates and intervals of a measurement on so many devices, one row for each kind of statistics."""
    mesh, records, rows = sharding.make_mesh(jax.devices()[:count]), [], np.arange(EXAMPLES)
    planned = (Stage("O", 1.0, EXAMPLES, 16, 0.05, 1),)
    session: Any = SimpleNamespace(
        experiment=ExperimentConfig(measure="noise"),
        stages=planned,
        subsets=[SimpleNamespace(rows=rows)],
        compiled=compiled_on(mesh, network()),
        train_loader=loader_on(mesh, kind),
        timer=Timer(),
        stop=False,
        mesh=mesh,
        log=SimpleNamespace(record=records.append),
    )
    measure_noise(session, sharding.place(first_state(network()), sharding.replicated(mesh)), 1, "end")
    return [[each.trace, *each.trace_interval, each.squared_norm, each.b_simple] for each in records]


def kernel_gradient() -> float:
    """How far the sum over shares of a batch is from XLA's own gradient of a kernel."""
    random = np.random.default_rng(0)
    x, kernel, gradient = (
        random.normal(size=shape).astype(np.float32) for shape in ((16, 6, 6, 3), (3, 3, 3, 4), (16, 3, 3, 4))
    )
    (theirs,) = jax.vjp(lambda kernel: convolution.convolve_plainly(jax.numpy.asarray(x), kernel, 2), kernel)[1](
        gradient
    )
    return furthest(convolution._gradient_of_kernel(jax.numpy.asarray(x), jax.numpy.asarray(gradient), 3, 2), theirs)


def plain_groups() -> dict[str, Any]:
    """How far grouped convolutions of an accelerator on eight devices are from those on one, and what they exchange."""
    random = np.random.default_rng(0)
    x, kernel, gradient = (
        random.normal(size=shape).astype(np.float32) for shape in ((16, 6, 6, 8), (3, 3, 2, 8), (16, 3, 3, 8))
    )

    def both(x: Any, kernel: Any, gradient: Any) -> Any:
        result, back = jax.vjp(partial(convolution.convolve_plainly, stride=2, groups=4), x, kernel)
        return result, *back(gradient)

    mesh = sharding.make_mesh()
    images, whole = sharding.split_along(mesh, 0), sharding.replicated(mesh)
    divided = jax.jit(sharding.on_mesh(mesh, both), in_shardings=(images, whole, images))
    ways: list[Any] = [function.lower(x, kernel, gradient).compile() for function in (divided, jax.jit(both))]
    eight, one = ways
    return {
        "apart": furthest(eight(x, kernel, gradient), one(x, kernel, gradient)),
        "exchanged": collectives(eight.as_text()),
        "share": eight.cost_analysis()["flops"] / one.cost_analysis()["flops"],
    }


def compiled(net: Any, kind: str, count: int, batch_size: int) -> Any:
    """The training step of a batch, as XLA compiled it."""
    mesh = sharding.make_mesh(jax.devices()[:count])
    state = sharding.place(first_state(net), sharding.replicated(mesh))
    loader = loader_on(mesh, kind)
    inputs = loader.abstract_inputs(1, batch_size)
    return compiled_on(mesh, net)._train_function(PLAIN).lower(state, loader.examples, inputs).compile()


def collectives(text: str) -> list[str]:
    """What the devices exchange: the kind and the type of the result, each once."""
    found = re.findall(r"= \(?([a-z0-9]+).* (all-[a-z]+|collective-[a-z]+|reduce-scatter)(?:-start)?\(", text)
    return sorted({f"{kind} of {dtype}" for dtype, kind in found})


def compiled_steps() -> dict[str, Any]:
    """What eight devices exchange in a step, by the way of delivery and for grouped convolutions, and its bytes."""
    grouped = models.build("resnext50_32x4d", num_classes=10, width=8, blocks=(1, 1, 1, 1), small_images=True)
    streamed = {count: compiled(network(), "streamed", count, 64) for count in (1, 8)}
    sizes = {count: each.memory_analysis() for count, each in streamed.items()}
    exchanged = {
        "streamed": collectives(streamed[8].as_text()),
        "replicated": collectives(compiled(network(), "replicated", 8, 64).as_text()),
        "sharded": collectives(compiled(network(), "sharded", 8, 64).as_text()),
        "grouped": collectives(compiled(grouped, "replicated", 8, 32).as_text()),
    }
    # What small convolutions do not take: a loop over patches of a few images.
    row_products._MOST_BYTES, convolution._PATCHES_PAY = 0, 0.0
    jax.clear_caches()
    exchanged["patches"] = collectives(compiled(network(), "replicated", 8, 64).as_text())
    return {
        "exchanged": exchanged,
        "arguments": {count: size.argument_size_in_bytes for count, size in sizes.items()},
        "temporary": {count: size.temp_size_in_bytes for count, size in sizes.items()},
    }


class StopAfter(Recorder):
    """Sends this process a signal when an epoch is on record."""

    def __init__(self, stage: int):
        super().__init__()
        self._stage = stage

    def on_epoch(self, record: EpochRecord) -> None:
        if record.stage == self._stage:
            os.kill(os.getpid(), signal.SIGTERM)


def run_on(counts: Sequence[int], folder: Path, data_dir: str) -> dict[str, Any]:
    """A whole plan in float64: on so many devices after each other, one stage on each, the last ones on the last."""
    experiment = ExperimentConfig(
        data=DataConfig(
            name="digits", data_dir=data_dir, image_size=SIDE, train_examples=EXAMPLES, normalisation="none"
        ),
        plan=PLAN,
        evaluation=EvaluationConfig(batch_size=120),
        checkpoint=CheckpointConfig(every_seconds=1e9),
    )
    net, planned = network("float64"), planning.make_plan(PLAN, EXAMPLES, experiment.optimizer)
    first = first_state(network())
    wide = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), {"params": first.params, "batch_stats": first.batch_stats}
    )
    for stage, count in enumerate(counts, start=1):
        display = StopAfter(stage) if stage < len(counts) else Recorder()
        loop_mesh = partial(sharding.make_mesh, jax.devices()[:count])
        make_mesh, sharding.make_mesh = sharding.make_mesh, loop_mesh
        try:
            loop.run(experiment, planned, net, folder, observers=[display], variables=wide)
        except InterruptedRunError:
            assert stage < len(counts)
        finally:
            sharding.make_mesh = make_mesh
    rows = record_file.read_records(folder)
    return {
        "losses": [row["train_loss"] for row in rows.epochs],
        "probabilities": np.load(folder / "predictions.npz")["probabilities"].tolist(),
        "stops": sum(event["name"] == "stop" for event in rows.events),
    }


def main(folder: Path, data_dir: str) -> dict[str, Any]:
    noise = {count: measured_noise(count, "streamed" if count == 8 else "replicated") for count in (1, 2, 8)}
    found = {
        "steps": steps(),
        "noise": noise,
        "kernel_gradient": kernel_gradient(),
        "plain_groups": plain_groups(),
        **compiled_steps(),
    }
    jax.config.update("jax_enable_x64", True)
    data = DataConfig(name="digits", data_dir=data_dir)
    assert datasets.sizes(data).train >= EXAMPLES
    runs = {"one": [1], "four, one, eight": [4, 1, 8]}
    return found | {"runs": {name: run_on(counts, folder / name, data_dir) for name, counts in runs.items()}}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
