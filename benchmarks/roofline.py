"""Count what bounds the paper's networks on a device, and what its tables would cost there; nothing is measured.

    python benchmarks/roofline.py [--device "NVIDIA H200"] [--json]

For each network and batch size of `configs/` the kernels of one training step (forward, backward, SGD) at 224 x 224 in
bfloat16 are counted from the graph, as in graph_cost.py: the operations of products, and the bytes that must pass
between memory and cores if all elementwise work is fused. A kernel takes at least as long as its operations at the
device's published peak or its bytes at its published bandwidth, whichever is longer; the roofline of a step is the sum
over its kernels. It leaves out launches, kernels below the peak, the help of caches, waiting for input, evaluation,
checkpoints and compiling.

The second table multiplies this by the updates of every row of the paper's tables. Beside the hours at the roofline it
has those at a stated share of it: the share of its own roofline, counted in the same way, that NVIDIA's published
ResNet-50 reaches on an A100-80G (2,470 images/s with AMP, batch 256). Small batches reach less.
"""

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from graph_cost import Kernel, kernels  # noqa: E402

import models  # noqa: E402
from stepwise_jax.data import datasets  # noqa: E402
from stepwise_jax.experiment.config import ExperimentConfig, OptimizerConfig  # noqa: E402
from stepwise_jax.experiment.config_files import load_config, load_rows  # noqa: E402
from stepwise_jax.functional.optimizers import make_optimizer  # noqa: E402
from stepwise_jax.functional.state import make_initializer  # noqa: E402
from stepwise_jax.functional.train_step import Batch, make_train_step  # noqa: E402
from stepwise_jax.plans import planning  # noqa: E402
from stepwise_jax.runtime import devices  # noqa: E402

PRECISION = "bfloat16"
BATCHES = (24, 48, 72, 96)
REFERENCE_DEVICE, REFERENCE_BATCH, REFERENCE_SPEED = "NVIDIA A100-SXM4-80GB", 256, 2470.0
"""NVIDIA's DeepLearningExamples, PyTorch, ResNet-50 v1.5, one A100-80G with AMP: images a second."""


class Bound(NamedTuple):
    """The least time of one step."""

    flops: float
    bytes: float
    seconds: float
    """Sum over the kernels."""
    seconds_of_products: float
    """Of the kernels that are bound by operations, not by memory."""


def bound(counted: Sequence[Kernel], peak: devices.PeakPerformance) -> Bound:
    """The roofline of kernels that run one after the other."""
    most = peak.flops(PRECISION)
    if not most:
        raise ValueError(f"a device that has no {PRECISION} has no roofline for it")
    computing = [each.flops / most for each in counted]
    moving = [each.bytes / peak.bandwidth for each in counted]
    longer = [(max(pair), pair[0] > pair[1]) for pair in zip(computing, moving, strict=True)]
    return Bound(
        sum(each.flops for each in counted),
        sum(each.bytes for each in counted),
        sum(seconds for seconds, _ in longer),
        sum(seconds for seconds, by_products in longer if by_products),
    )


@functools.cache
def step_kernels(network: str, classes: int, image_size: int, batch_size: int) -> tuple[Kernel, ...]:
    """The kernels of one training step of a network by name."""
    net = models.build(network, num_classes=classes, dtype=jnp.bfloat16)
    optimizer = make_optimizer(OptimizerConfig())
    state = jax.eval_shape(make_initializer(net, optimizer, image_size), jax.random.key(0))
    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    return tuple(kernels(make_train_step(net, optimizer), state, Batch(images, labels)))


def experiments() -> dict[str, dict[str, ExperimentConfig]]:
    """The rows of each configuration that reproduces something of the paper, by file."""
    files = sorted((ROOT / "configs").glob("[a-z]*.py"))
    return {path.name: load_rows(str(path)) for path in files if load_config(str(path)).reproduces}


def network_rows(names: Sequence[str], peak: devices.PeakPerformance) -> list[dict[str, Any]]:
    """The roofline of each network at the paper's batch sizes, with 1,000 classes."""
    rows = []
    for name in names:
        for size in BATCHES:
            found = bound(step_kernels(name, 1000, 224, size), peak)
            rows.append(
                {"network": name, "batch_size": size, "images_per_second": size / found.seconds, **found._asdict()}
            )
    return rows


def table_row(file: str, rows: dict[str, ExperimentConfig], peak: devices.PeakPerformance) -> dict[str, Any]:
    """Updates and hours at the roofline of all rows of one configuration, and hours of its two main rows."""
    costs = {name: row_cost(experiment, peak) for name, experiment in rows.items()}
    updates, seconds = (sum(column) for column in zip(*costs.values(), strict=True))
    main = {name: costs[name][1] / 3600 for name in ("stepwise", "baseline") if name in costs}
    return {"file": file, "rows": len(rows), "updates": updates, "hours": seconds / 3600, **main}


def row_cost(experiment: ExperimentConfig, peak: devices.PeakPerformance) -> tuple[int, float]:
    """Updates, and their seconds at the roofline."""
    sizes = datasets.sizes(experiment.data)
    planned = planning.make_plan(experiment.plan, sizes.train, experiment.optimizer)
    side, network = experiment.data.image_size, experiment.model.name

    def step(batch_size: int) -> float:
        return bound(step_kernels(network, sizes.num_classes, side, batch_size), peak).seconds

    updates = sum(stage.updates for stage in planned)
    return updates, sum(stage.updates * step(stage.batch_size) for stage in planned)


def reference_share() -> float:
    """The share of an A100's roofline that NVIDIA's published ResNet-50 reaches."""
    peak = devices.find_peak(REFERENCE_DEVICE)
    assert peak is not None
    found = bound(step_kernels("resnet50", 1000, 224, REFERENCE_BATCH), peak)
    return REFERENCE_SPEED / (REFERENCE_BATCH / found.seconds)


def network_line(row: dict[str, Any], balance: float) -> str:
    """A row of the first table in Markdown."""
    intensity, size = row["flops"] / row["bytes"], row["batch_size"]
    cells = (
        row["network"],
        str(size),
        f"{row['flops'] / size / 1e9:.1f}",
        f"{row['bytes'] / size / 1e6:.0f}",
        f"{intensity:.0f}",
        "memory" if intensity < balance else "products",
        f"{100 * row['seconds_of_products'] / row['seconds']:.0f} %",
        f"{1000 * row['seconds']:.2f}",
        f"{row['images_per_second']:,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def cost_line(row: dict[str, Any], share: float) -> str:
    """A row of the second table in Markdown."""
    main = (f"{row[name] / share:.2f}" if name in row else "–" for name in ("stepwise", "baseline"))
    cells = (
        f"`{row['file']}`",
        str(row["rows"]),
        f"{row['updates']:,}",
        f"{row['hours']:.2f}",
        f"{row['hours'] / share:.2f}",
        *main,
    )
    return f"| {' | '.join(cells)} |"


NETWORK_HEADER = (
    "network",
    "batch",
    "GFLOP an image",
    "MB an image",
    "FLOP a byte",
    "bound by",
    "time in products",
    "ms a step",
    "images/s",
)


def _print(document: dict[str, Any], peak: devices.PeakPerformance) -> None:
    flops, share = peak.flops(PRECISION) or 0.0, document["share"]
    balance = flops / peak.bandwidth
    at = f"{flops / 1e12:,.0f} TFLOP/s, {peak.bandwidth / 1e12:.1f} TB/s, {balance:.0f} FLOP a byte"
    print(f"The roofline on one {document['device']} ({at}), {PRECISION}, 224 x 224:\n")
    print(f"| {' | '.join(NETWORK_HEADER)} |\n|{'---|' * len(NETWORK_HEADER)}")
    for row in document["networks"]:
        print(network_line(row, balance))
    slower = f"at {100 * share:.0f} % of it"
    header = ("file", "rows", "updates", "hours at the roofline", slower, f"stepwise {slower}", f"baseline {slower}")
    print(
        f"\nAn estimate, not a measurement: hours of one {document['device']}, one seed, {PRECISION}, training alone.\n"
    )
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in document["tables"]:
        print(cost_line(row, share))
    total = sum(row["hours"] for row in document["tables"])
    print(f"\nAll rows: {total:.1f} hours at the roofline, {total / share:.1f} {slower}.")


def main() -> None:
    """Parse, count, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="NVIDIA H200", help="a kind of device, as JAX names it")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    peak = devices.find_peak(arguments.device)
    if peak is None or not peak.flops(PRECISION):
        parser.error(f"--device {arguments.device}: its peak in {PRECISION} is not in stepwise_jax/runtime/devices.py")
    files = experiments()
    names = dict.fromkeys(experiment.model.name for rows in files.values() for experiment in rows.values())
    document = {
        "device": arguments.device,
        "networks": network_rows(sorted(names), peak),
        "tables": [table_row(file, rows, peak) for file, rows in files.items()],
        "share": reference_share(),
    }
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        _print(document, peak)


if __name__ == "__main__":
    main()
