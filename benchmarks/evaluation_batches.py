"""Find the batch size that scores a test set fastest: `evaluation.batch_size` 0 is based on these measurements.

    python benchmarks/evaluation_batches.py [--network res2net_small] [--width 8] [--image-size 32]
                                            [--batch-sizes 25,50,100,250,500] [--json]

Each size scores 1,000 images in each of several turns, one size after the other; the best turn counts.
"""

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version

import jax
import jax.numpy as jnp

import models
from stepwise_jax.experiment.config import OptimizerConfig
from stepwise_jax.functional.metrics import eval_logits
from stepwise_jax.functional.optimizers import make_optimizer
from stepwise_jax.runtime import sharding
from stepwise_jax.runtime.process import compute_in_main_thread, restart_with_malloc_settings
from stepwise_jax.training.programs import step_functions

IMAGES = 1000
TURNS = 5


def measure(name: str, width: int, image_size: int, batch_sizes: list[int]) -> dict[int, float]:
    """Images a second of each batch size, in its best turn."""
    network = models.build(name, num_classes=10, small_images=True, width=width)
    state = step_functions.random_state(network, make_optimizer(OptimizerConfig()), image_size, sharding.make_mesh())
    images = jax.random.normal(jax.random.key(0), (max(batch_sizes), image_size, image_size, 3))
    parts = {size: images[:size] for size in batch_sizes}
    score = jax.jit(lambda state, images: jnp.asarray(eval_logits(network, state, images)))
    compiled = {size: score.lower(state, part).compile() for size, part in parts.items()}
    best = dict.fromkeys(batch_sizes, 0.0)
    for _ in range(TURNS):
        for size, program in compiled.items():
            calls = -(-IMAGES // size)
            started = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(program(state, parts[size]))
            best[size] = max(best[size], calls * size / (time.perf_counter() - started))
    return best


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="res2net_small")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument(
        "--batch-sizes", type=lambda text: [int(size) for size in text.split(",")], default=[25, 50, 100, 250, 500]
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    best = measure(options.network, options.width, options.image_size, options.batch_sizes)
    if options.json:
        print(json.dumps(best))
        return 0
    print(f"{jax.devices()[0].device_kind}, {platform.machine()}, jax {version('jax')}\n")
    print("| batch | images/s |\n|---|---|")
    for size, rate in best.items():
        print(f"| {size} | {rate:,.0f} |")
    return 0


if __name__ == "__main__":
    restart_with_malloc_settings()
    compute_in_main_thread()
    sys.exit(main())
