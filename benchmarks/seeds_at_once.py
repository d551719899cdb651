"""Compare ways to repeat one small run: one after another, a process for each core or device, several in one program.

    python benchmarks/seeds_at_once.py [--network res2net_small] [--width 8] [--image-size 32] [--batch-sizes 24,96]
                                       [--seeds 2] [--seconds 20] [--samples 300000] [--json]

Three ways train several seeds: one after another, each on all cores; all at the same time, each in a process with its
own core; all in one program, `jax.vmap` over states and batches. Each takes two turns; the result is the examples of
all seeds in a second and, with the samples of one run, seeds an hour.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stepwise_jax.runtime.process import restart_with_malloc_settings

ROOT = Path(__file__).parents[1]
INNER = "--inner"
TURNS = 2


def steps_per_second(setting: dict[str, Any]) -> float:
    """Steps a second of one program of `together` seeds; waits for a line on stdin between compiling and timing."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import models
    from stepwise_jax.data.batches import ResidentSplit
    from stepwise_jax.experiment.config import OptimizerConfig
    from stepwise_jax.functional.optimizers import make_optimizer
    from stepwise_jax.functional.preprocessing import make_preprocessing
    from stepwise_jax.functional.train_step import make_train_step
    from stepwise_jax.runtime import sharding
    from stepwise_jax.training.programs import step_functions

    size, batch, together = setting["image_size"], setting["batch_size"], setting["together"]
    network = models.build(setting["network"], num_classes=10, small_images=True, width=setting["width"])
    optimizer, mesh = make_optimizer(OptimizerConfig()), sharding.make_mesh()
    call = step_functions.make_train_call(make_train_step(network, optimizer), make_preprocessing("imagenet", size))
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (1024, size, size, 3), np.uint8), random.integers(0, 10, 1024, np.int32)
    examples = jax.device_put(ResidentSplit(images, labels))
    state = step_functions.random_state(network, optimizer, size, mesh)
    inputs = jnp.asarray(random.integers(0, 1024, (together, 1, batch)).astype(np.int32))
    if together > 1:
        state = jax.tree.map(lambda leaf: jnp.stack([leaf] * together), state)
        train = jax.jit(jax.vmap(call, in_axes=(0, None, 0)), donate_argnums=0)
    else:
        inputs, train = inputs[0], jax.jit(call, donate_argnums=0)

    def step() -> None:
        nonlocal state
        state, losses = train(state, examples, inputs)
        jax.block_until_ready(losses)

    for _ in range(3):
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    return calls_per_second(step, setting["seconds"])


def calls_per_second(call: Callable[[], None], seconds: float) -> float:
    """Calls a second, over at least so many seconds."""
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        call()
        done += 1
    return done / spent


def examples_per_second(setting: dict[str, Any], cores: Sequence[Sequence[int]]) -> float:
    """Examples of all seeds in a second, with a process for each set of cores, all at the same time."""
    command = [sys.executable, __file__, INNER, json.dumps(setting)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, own)), *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in cores
    ]
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"a process of {setting} has failed: see its output above")
    rates = [json.loads(process.communicate("go\n")[0]) for process in processes]
    return sum(rates) * setting["batch_size"] * setting["together"]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """For each batch size, the examples a second of each way, the better of its turns."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // options.seeds
    if share < 1:
        raise SystemExit(f"--seeds {options.seeds}: there are {len(cores)} cores, and each seed needs one")
    shares = [cores[share * number : share * (number + 1)] for number in range(options.seeds)]
    rows = []
    for batch_size in (int(size) for size in options.batch_sizes.split(",")):
        fixed = {name: getattr(options, name) for name in ("network", "width", "image_size", "seconds")}
        one = {**fixed, "batch_size": batch_size, "together": 1}
        several = {**one, "together": options.seeds}
        turns = [
            (examples_per_second(one, [cores]), examples_per_second(one, shares), examples_per_second(several, [cores]))
            for _ in range(TURNS)
        ]
        alone, processes, together = (max(times) for times in zip(*turns, strict=True))
        rows.append({"batch_size": batch_size, "alone": alone, "processes": processes, "together": together})
    return rows


def show(result: dict[str, Any]) -> None:
    """Prints the table as Markdown."""
    setting, hour = result["setting"], 3600 / result["setting"]["samples"]
    print(f"{result['machine']}, {', '.join(f'{name} {of}' for name, of in result['versions'].items())}\n")
    seeds, samples = setting["seeds"], setting["samples"]
    print(f"Seeds an hour of {setting['network']}, {samples:,} samples each (examples a second):\n")
    print(f"| batch | one at a time | {seeds} processes | gain | {seeds} in one program | gain |")
    print("|---|---|---|---|---|---|")
    for row in result["rows"]:
        rates = [f"{row[way] * hour:.2f} ({row[way]:,.0f})" for way in ("alone", "processes", "together")]
        gains = [f"{row[way] / row['alone']:.2f}" for way in ("processes", "together")]
        print(f"| {row['batch_size']} | {rates[0]} | {rates[1]} | {gains[0]} | {rates[2]} | {gains[1]} |")


def main() -> int:
    """Measures and prints."""
    if sys.argv[1:2] == [INNER]:
        restart_with_malloc_settings()
        print(json.dumps(steps_per_second(json.loads(sys.argv[2]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="res2net_small", help="(default: res2net_small)")
    parser.add_argument("--width", type=int, default=8, help="of the network's first stage (default: 8)")
    parser.add_argument("--image-size", type=int, default=32, help="(default: 32)")
    parser.add_argument("--batch-sizes", default="24,96", help="(default: 24,96)")
    parser.add_argument("--seeds", type=int, default=2, help="at a time (default: 2)")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement (default: 20)")
    parser.add_argument("--samples", type=int, default=300_000, help="of one run (default: 300000)")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options = parser.parse_args()
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax")}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "versions": versions, "setting": vars(options), "rows": measure(options)}
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
