"""Measure the cost of a checkpoint: the seconds that training waits for it, and those until it is on disk.

    python benchmarks/checkpoint_cost.py [--network resnet50] [--image-size 224] [--repeat 5] [--folder DIR]

The state of a network is saved as in the loop: checked, copied, hashed, passed to Orbax, written in the background. The
wait is divided by `checkpoint.every_seconds` (300): the largest share of the time that saving takes.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax

import models
from stepwise_jax.experiment.config import CheckpointConfig, OptimizerConfig
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.functional.state import TrainState, make_initializer
from stepwise_jax.runtime import sharding
from stepwise_jax.runtime.process import silence_orbax
from stepwise_jax.training import saving
from stepwise_jax.training.progress import Position
from stepwise_jax.workdir.checkpoints import Checkpoints


def make_state(network: str, image_size: int) -> TrainState:
    """The state of a network of 1,000 classes before its first step, on all devices."""
    create = make_initializer(models.build(network, num_classes=1000), make_optimizer(OptimizerConfig()), image_size)
    return jax.device_put(jax.jit(create)(jax.random.key(0)), sharding.replicated(sharding.make_mesh()))


def measure(state: TrainState, folder: Path, repeat: int) -> tuple[list[float], list[float]]:
    """Seconds that training waits for each save, and seconds until it is on disk."""
    waited, whole = [], []
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in range(repeat + 1):
            started = time.perf_counter()
            assert saving.is_finite(state)
            checkpoints.save(state._replace(step=state.step * 0 + step), Position(updates=step).document())
            waited.append(time.perf_counter() - started)
            checkpoints.wait()
            whole.append(time.perf_counter() - started)
    # The first save also loads libraries.
    return waited[1:], whole[1:]


def main() -> int:
    """Prints both, and the share of training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50", help="name of a network (default: resnet50)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels a side (default: 224)")
    parser.add_argument("--repeat", type=int, default=5, help="saves to measure (default: 5)")
    parser.add_argument("--folder", type=Path, help="where to save; by default a temporary folder")
    options = parser.parse_args()
    silence_orbax()
    state = make_state(options.network, options.image_size)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        waited, whole = measure(state, Path(folder) / "checkpoints", options.repeat)
    every = CheckpointConfig().every_seconds
    print(f"{options.network}: a state of {size / 2**20:.0f} MiB, {options.repeat} saves")
    print(f"training waits {statistics.median(waited):.2f} s (the most {max(waited):.2f} s)")
    print(f"on disk after  {statistics.median(whole):.2f} s (the most {max(whole):.2f} s)")
    print(f"one every {every:.0f} s: {100 * max(waited) / every:.2f} % of the time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
