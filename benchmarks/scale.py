"""Count the cost of a training step for each of N devices: operations, bytes moved, bytes of collectives.

    python benchmarks/scale.py NETWORK... [--batch-size 96] [--devices 1,2,4,8] [--image-size 224]
        [--small-images] [--width N] [--blocks A,B,C,D] [--classes N] [--json]

Devices are simulated: for each N a fresh process compiles the step of one whole batch for N devices, as a run of N
devices would, and nothing is executed. The numbers are XLA's, of the program that one device gets: `flops` and `bytes
accessed` of its cost analysis (bytes of every fused kernel's inputs and outputs), and the sizes of the outputs of its
collectives. Convolutions and norms are those of an accelerator, not the rewritten ones for a CPU, and float32: XLA's
CPU compiler widens bfloat16.

Ideal is one N-th of the work of one device, and one sum of all gradients. The statistics of batch norm are over the
whole batch, so each norm adds two sums of its channels in the forward pass and two in the backward pass.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
IMAGES = 1024
_BYTES = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "u8": 1, "s8": 1, "pred": 1}
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf"= (?P<type>\(.*?\)|\S+) (?:{_KINDS})\(")
_SHAPE = re.compile(r"(?P<type>[a-z]+[0-9]*)\[(?P<sides>[0-9,]*)\]")

HEADER = (
    "network",
    "devices",
    "GFLOP a device",
    "of ideal",
    "GB moved a device",
    "of ideal",
    "collectives",
    "MB in them",
    "MB of gradients",
)


def collectives(program: str) -> tuple[int, int]:
    """The number of collectives in a compiled program's text, and the bytes of their outputs."""
    found = [match["type"] for match in _COLLECTIVE.finditer(program)]
    return len(found), sum(_size(each) for each in found)


def _size(types: str) -> int:
    """Bytes of all arrays in the text of a type, as `(f32[64]{0}, f32[])`."""
    return sum(
        _BYTES[match["type"]] * math.prod(int(side) for side in match["sides"].split(",") if side)
        for match in _SHAPE.finditer(types)
    )


def count(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """Compiles one step for all devices of this process, and counts the work of each."""
    sys.path.insert(0, str(ROOT))
    import jax
    import numpy as np

    import models
    from stepwise_jax.data.batches import ResidentSplit
    from stepwise_jax.experiment.config import OptimizerConfig
    from stepwise_jax.functional.optimizers import make_optimizer
    from stepwise_jax.functional.preprocessing import make_preprocessing
    from stepwise_jax.functional.state import make_initializer
    from stepwise_jax.runtime.sharding import make_mesh, replicated, split_along
    from stepwise_jax.training.programs import step_functions

    # Where code differs by platform, take the accelerator's.
    jax.lax.platform_dependent = lambda *args, default, **_: default(*args)
    side, mesh, optimizer = arguments.image_size, make_mesh(), make_optimizer(OptimizerConfig())
    shape = {"width": arguments.width, "blocks": arguments.blocks, "small_images": arguments.small_images}
    network = models.build(name, num_classes=arguments.classes, **shape)
    network.check(jax.ShapeDtypeStruct((1, side, side, 3), np.float32))
    whole = replicated(mesh)

    def abstract(leaf: Any, sharding: Any = whole) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    state = jax.tree.map(abstract, jax.eval_shape(make_initializer(network, optimizer, side), jax.random.key(0)))
    images = ResidentSplit(
        jax.ShapeDtypeStruct((IMAGES, side, side, 3), np.uint8), jax.ShapeDtypeStruct((IMAGES,), np.int32)
    )
    rows = abstract(jax.ShapeDtypeStruct((1, arguments.batch_size), np.int32), split_along(mesh, 1))
    function = step_functions.jit_train_call(network, optimizer, make_preprocessing("imagenet", side), mesh)
    compiled = function.lower(state, jax.tree.map(abstract, images), rows).compile()
    gradients = sum(4 * leaf.size for leaf in jax.tree.leaves(state.params))
    return {"network": name, "devices": mesh.size, **work_of(compiled), "gradient_bytes": gradients}


def work_of(compiled: Any) -> dict[str, Any]:
    """The operations, the memory traffic and the collectives of a compiled step, for one device."""
    analysis, (number, size) = compiled.cost_analysis(), collectives(compiled.as_text())
    traffic = {"flops": analysis["flops"], "bytes_accessed": analysis["bytes accessed"]}
    return {**traffic, "collectives": number, "collective_bytes": size}


def count_elsewhere(words: list[str], devices: int) -> list[dict[str, Any]]:
    """Counts in a fresh process of `devices` simulated devices.

    Raises:
      SystemExit: with the process's status if it fails; the process has printed why.
    """
    # LLVM's optimisations do not change the counts.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, __file__, *words, "--worker"], env=environment, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def against_ideal(counted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by network and devices, each with its shares of the ideal, that is of the fewest devices' work divided."""
    rows = []
    for row in sorted(counted, key=lambda row: (row["network"], row["devices"])):
        first = min((each for each in counted if each["network"] == row["network"]), key=lambda each: each["devices"])
        fewer = first["devices"] / row["devices"]
        shares = {f"{name}_of_ideal": row[name] / (first[name] * fewer) for name in ("flops", "bytes_accessed")}
        rows.append({**row, **shares})
    return rows


def line(row: dict[str, Any]) -> str:
    """A row of the table in Markdown."""
    cells = (
        row["network"],
        str(row["devices"]),
        f"{row['flops'] / 1e9:,.2f}",
        f"{row['flops_of_ideal']:.3f}",
        f"{row['bytes_accessed'] / 1e9:,.3f}",
        f"{row['bytes_accessed_of_ideal']:.3f}",
        str(row["collectives"]),
        f"{row['collective_bytes'] / 1e6:,.2f}",
        f"{row['gradient_bytes'] / 1e6:,.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(word) for word in text.split(","))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text}: positive whole numbers with commas between")
    return numbers


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.add_argument("--devices", type=_numbers, default=(1, 2, 4, 8))
    parser.add_argument("--batch-size", type=int, default=96, help="images of all devices together")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--small-images", action="store_true")
    parser.add_argument("--width", type=int)
    parser.add_argument("--blocks", type=_numbers)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unshared = [each for each in arguments.devices if arguments.batch_size < 1 or arguments.batch_size % each]
    if unshared and not arguments.worker:
        parser.error(f"--batch-size {arguments.batch_size}: {unshared[0]} devices cannot share it evenly")
    return arguments


def main() -> None:
    """Parse, count in one process for each number of devices, and print the table."""
    arguments = _arguments()
    if arguments.worker:
        try:
            print(json.dumps([count(arguments, name) for name in arguments.networks]))
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        return
    counted = [row for devices in arguments.devices for row in count_elsewhere(sys.argv[1:], devices)]
    rows = against_ideal(counted)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for row in rows:
        print(line(row))


if __name__ == "__main__":
    main()
