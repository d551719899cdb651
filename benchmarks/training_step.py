"""Time a full training step of our networks against PyTorch's, in turn on one machine.

    python benchmarks/training_step.py --torch-python TORCH_PYTHON [--batch-size 24] [--image-size 224] NETWORK...

TORCH_PYTHON is the interpreter of an environment that has torch, timm and pillow (torchvision is not needed):

    python3 -m venv torch-env && torch-env/bin/pip install torch==2.13.0 pillow pyyaml safetensors huggingface_hub
    torch-env/bin/pip install --no-deps timm

Both sides take the same network, float32, batch, threads, and SGD with momentum 0.9 and weight decay 1e-4; PyTorch
runs channels-last. They take turns, each alone in its turn, so that other load on the machine affects both. A turn is
three steps of which the first is not counted: in training steps follow one another, and the first after a pause waits
for memory that the system has reclaimed. The table gives the median over all turns; CPU seconds are steadier than
wall seconds if cores are shared. Both sides keep their memory and have it in huge pages, as `launch.py train` does,
unless GLIBC_TUNABLES is set. compare_with_torch.py compares with more variants of PyTorch's step.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from torch_side import import_timm

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, CLASSES = 0.001, 0.9, 1e-4, 1000
COUNTED_STEPS = 2


def jax_step(name: str, batch_size: int, image_size: int) -> Callable[[], None]:
    """A training step of our network, compiled."""
    import jax
    import jax.numpy as jnp
    import optax

    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
    import models
    from stepwise_jax.functional.state import TrainState, state_from_variables
    from stepwise_jax.functional.train_step import Batch, make_train_step
    from stepwise_jax.runtime.process import compute_in_main_thread

    compute_in_main_thread()
    net = models.build(name, num_classes=CLASSES)
    optimizer = optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.sgd(LEARNING_RATE, MOMENTUM))
    images = jax.random.normal(jax.random.key(1), (batch_size, image_size, image_size, 3))
    variables = jax.jit(lambda key: net.init(key, images, train=False))(jax.random.key(0))
    state: list[TrainState] = [state_from_variables(variables, optimizer)]
    batch = Batch(images, jnp.arange(batch_size))
    compiled = jax.jit(make_train_step(net, optimizer), donate_argnums=0).lower(state[0], batch).compile()

    def step() -> None:
        state[0], metrics = compiled(state[0], batch)
        jax.block_until_ready((state[0], metrics))

    return step


def torch_step(name: str, batch_size: int, image_size: int) -> Callable[[], None]:
    """A training step of timm's network."""
    import torch  # pyright: ignore

    timm = import_timm()

    net = timm.create_model(name, num_classes=CLASSES).to(memory_format=torch.channels_last).train()
    images = torch.randn(batch_size, 3, image_size, image_size).to(memory_format=torch.channels_last)
    labels = torch.arange(batch_size)
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return step


def work(library: str, name: str, batch_size: int, image_size: int) -> None:
    """Run one side: take a turn for each line on stdin, and print its wall and CPU seconds a step."""
    step = {"jax": jax_step, "torch": torch_step}[library](name, batch_size, image_size)
    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        step()
        wall, cpu = time.perf_counter(), sum(os.times()[:2])
        for _ in range(COUNTED_STEPS):
            step()
        seconds = time.perf_counter() - wall, sum(os.times()[:2]) - cpu
        print(*(total / COUNTED_STEPS for total in seconds), flush=True)


def compare(arguments: argparse.Namespace, name: str) -> str:
    """One row of the table."""
    pythons = {"jax": sys.executable, "torch": arguments.torch_python}
    common = [__file__, name, "--batch-size", str(arguments.batch_size), "--image-size", str(arguments.image_size)]
    sides = {}
    for library, python in pythons.items():
        sides[library] = subprocess.Popen(
            [python, *common, "--worker", library], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        while (line := sides[library].stdout.readline().strip()) != "ready":
            if not line and sides[library].poll() is not None:
                raise SystemExit(f"{name}: the {library} side stopped")
    times = {library: [] for library in sides}
    for _ in range(arguments.rounds):
        for library, side in sides.items():
            side.stdin.write("\n")
            side.stdin.flush()
            times[library].append([float(number) for number in side.stdout.readline().split()])
    for side in sides.values():
        side.communicate()
    medians = {library: [statistics.median(column) for column in zip(*rows)] for library, rows in times.items()}  # noqa: B905
    (wall, cpu), (torch_wall, torch_cpu) = medians["jax"], medians["torch"]
    return (
        f"| {name} | {wall:.1f} | {torch_wall:.1f} | {wall / torch_wall:.2f} "
        f"| {cpu:.1f} | {torch_cpu:.1f} | {cpu / torch_cpu:.2f} |"
    )


def main() -> None:
    """Parse, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--torch-python", default="python3")
    parser.add_argument("--batch-size", type=int, default=24)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=("jax", "torch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(arguments.worker, arguments.networks[0], arguments.batch_size, arguments.image_size)
    from stepwise_jax.runtime.process import with_malloc_settings

    os.environ.update(with_malloc_settings(os.environ))
    print("| network | wall s | PyTorch | ratio | CPU s | PyTorch | ratio |\n|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.networks:
        print(compare(arguments, name), flush=True)


if __name__ == "__main__":
    main()
