"""Compare training with PyTorch and timm on this machine: one command, one run, turn by turn, within ten minutes.

    python benchmarks/compare_with_torch.py --torch-python TORCH_PYTHON [NETWORK...] [--batch-sizes 24,96]
        [--precision bfloat16] [--image-size N] [--small-images] [--width N] [--blocks A,B,C,D] [--classes N]
        [--minutes 9.5] [--rounds 3] [--turn-seconds 0.5] [--out FOLDER]

TORCH_PYTHON is the interpreter of an environment that has torch and timm (for a GPU: torch's build for it); the first
lines of training_step.py say how to make one.

On a GPU: ResNet-50, ResNeXt-50, Res2Net-50 and Res2NeXt-50 at 224 x 224 in bfloat16 (autocast on PyTorch's side), at
batches 96, 24, 256, 48 and 72. On a CPU: two small networks at 32 x 32 in float32, at batches 24 and 96. PyTorch runs
in three variants: eager, channels-last, and channels-last through torch.compile. Ours is what a run executes, on images
that are on the device: as many steps in a call as a run takes there ("ours"), and on a GPU one step a call as well
("ours-single"). Both sides take the same network (their parameters are counted), SGD with momentum and weight decay,
and the same threads; ours also gathers and normalises its batches. A ratio is PyTorch's time over ours, the median over
the rounds: above 1, ours is faster.

How the time is spent (--minutes, 9.5 by default): the batch sizes are taken one after the other, those that tell most
first. For each, the processes of all networks compile at the same time (two networks where the batch is above 128, for
memory; one on a CPU); then they take turns, each alone: in each of 3 rounds every variant of every network has a turn
of about half a second, or of one call where that is longer. For 20 cells on a GPU the turns are to take some 4 of the
9.5 minutes; 5.5 are left to start and to compile in. A batch size is begun only if there is time for one as long as the
longest so far; a process that is not ready in time is ended; what was left out is told.
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compared_cells import TORCH_VARIANTS, Cell, keep, name, report
from worker import Worker, WorkerError

from stepwise_jax.kept_memory import with_kept_memory

ON_GPU = {
    "networks": ["resnet50", "resnext50_32x4d", "res2net50_26w_4s", "res2next50"],
    "batch_sizes": (96, 24, 256, 48, 72),
    "precision": "bfloat16",
    "image_size": 224,
    "classes": 1000,
    "steps_per_call": 32,
    "small_images": False,
}
ON_CPU = {
    "networks": ["resnet_small", "res2net_small"],
    "batch_sizes": (24, 96),
    "precision": "float32",
    "image_size": 32,
    "classes": 10,
    "steps_per_call": 1,
    "small_images": True,
}
LARGEST_TOGETHER = 128
"""The largest batch of which the steps of all networks have room on one device."""

_START_SECONDS = 120


class Budget:
    """The time that the whole comparison may take."""

    def __init__(self, seconds: float):
        self._end, self._longest = time.monotonic() + seconds, 0.0

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def note(self, seconds: float) -> None:
        """Remembers how long a wave of cells took."""
        self._longest = max(self._longest, seconds)

    def allows_another(self) -> bool:
        """Whether a wave as long as the longest so far would be over in time."""
        return self.left() > self._longest


class Comparison:
    """The sides of some networks, and their cells."""

    def __init__(self, options: argparse.Namespace, networks: Sequence[str], budget: Budget):
        self._options, self._budget = options, budget
        self._sides: dict[str, dict[str, Worker]] = {}
        self.described: dict[str, Any] = {}
        self.failed: dict[str, str] = {}
        for network in networks:
            self._sides[network] = {library: self._start(library, network) for library in ("jax", "torch")}
        for network in networks:
            self._meet(network)

    def _start(self, library: str, network: str) -> Worker:
        options = self._options
        shared = ("image_size", "classes", "small_images", "width", "blocks", "precision", "steps_per_call")
        setup = {each: getattr(options, each) for each in (*shared, "compile_mode", "device")}
        python = sys.executable if library == "jax" else options.torch_python
        # Several processes share the GPU: none may take its memory in advance.
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        return Worker(python, {"library": library, "network": network, **setup}, environment)

    def _meet(self, network: str) -> None:
        """Has both sides describe themselves, and makes sure that they train the same network."""
        found = {}
        try:
            for worker in self._sides[network].values():
                worker.ask("describe")
            for library, worker in self._sides[network].items():
                found[library] = worker.answer(min(_START_SECONDS, self._budget.left()))
            counts = [each.pop("parameters") for each in found.values()]
            if len(set(counts)) > 1:
                raise WorkerError(f"the networks differ: {counts[0]:,} parameters here, {counts[1]:,} in PyTorch's")
            versions = {**found["jax"]["versions"], **found["torch"]["versions"]}
            self.described = {**found["jax"], "versions": versions}
        except WorkerError as error:
            self._give_up(network, str(error))

    def _give_up(self, network: str, why: str) -> None:
        self.failed[network] = why
        for worker in self._sides.pop(network).values():
            worker.stop()

    def run(self, batch_size: int, networks: Sequence[str]) -> list[Cell]:
        """One wave: prepares a batch size of several networks at the same time, then measures them by turns."""
        cells = [Cell(network, batch_size) for network in networks if network in self._sides]
        for cell in cells:
            for key in self._keys():
                self._sides[cell.network][key[0]].ask("prepare", batch_size, key[1], self._multiple(key))
        reserve = 2 * len(cells) * len(self._keys()) * self._options.rounds * self._options.turn_seconds
        for cell in cells:
            self._collect(cell, reserve)
        for _ in range(self._options.rounds):
            started = time.monotonic()
            for cell in cells:
                self._take_round(cell)
            if self._budget.left() < time.monotonic() - started:
                break
        for cell in cells:
            for worker in self._sides.get(cell.network, {}).values():
                worker.ask("drop", batch_size)
                self._patiently(cell, worker)
        return cells

    def _keys(self) -> list[tuple[str, str]]:
        ours = ["run", "single"] if self._options.steps_per_call > 1 else ["run"]
        return [*(("jax", variant) for variant in ours), *(("torch", variant) for variant in TORCH_VARIANTS)]

    def _multiple(self, key: tuple[str, str]) -> int:
        """Steps that one call of a variant takes."""
        return self._options.steps_per_call if key == ("jax", "run") else 1

    def _collect(self, cell: Cell, reserve: float) -> None:
        """Waits until every variant is ready or has failed."""
        for key in self._keys():
            if cell.network not in self._sides:
                return
            try:
                answer = self._sides[cell.network][key[0]].answer(self._budget.left() - reserve)
                once = self._multiple(key)
                calls = max(1, round(self._options.turn_seconds / (answer["step"] * once)))
                # The first step after a pause waits for memory; a call of many steps hides that.
                cell.uncounted[key] = 1 if once == 1 else 0
                cell.steps[key], cell.prepared[key] = calls * once, answer["prepare"]
            except WorkerError as error:
                self._failed(cell, key, str(error))

    def _take_round(self, cell: Cell) -> None:
        turns = {}
        for key, steps in list(cell.steps.items()):
            if cell.network in self._sides:
                worker = self._sides[cell.network][key[0]]
                try:
                    worker.ask("turn", cell.batch_size, key[1], cell.uncounted[key], steps)
                    turns[key] = worker.answer(self._budget.left())
                except WorkerError as error:
                    self._failed(cell, key, str(error))
        if turns:
            cell.rounds.append(turns)

    def _failed(self, cell: Cell, key: tuple[str, str], why: str) -> None:
        cell.errors[name(key)] = why
        cell.steps.pop(key, None)
        if why in ("the time was up", "its process has stopped"):
            self._give_up(cell.network, f"{name(key)} at batch {cell.batch_size}: {why}")

    def _patiently(self, cell: Cell, worker: Worker) -> None:
        try:
            worker.answer(_START_SECONDS)
        except WorkerError as error:
            self.failed[cell.network] = str(error)

    def close(self) -> None:
        """Ends all processes."""
        for network in list(self._sides):
            for worker in self._sides.pop(network).values():
                worker.stop()


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Runs every cell there is time for, and writes what is known after each wave."""
    budget, started = Budget(60 * options.minutes), time.monotonic()
    cells: list[Cell] = []
    left_out: list[str] = []
    document: dict[str, Any] = {"date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    document |= {each: getattr(options, each) for each in ("precision", "image_size", "classes", "small_images")}
    document |= {each: getattr(options, each) for each in ("width", "blocks", "steps_per_call", "compile_mode")}
    for networks in groups(options.networks, 1 if options.device == "cpu" else len(options.networks)):
        comparison = Comparison(options, networks, budget)
        document |= comparison.described
        for batch_size, together in waves(options.batch_sizes, networks):
            if budget.allows_another():
                left_out += [f"{each} at batch {batch_size}" for each in together if each in comparison.failed]
                begun = time.monotonic()
                cells += comparison.run(batch_size, together)
                budget.note(time.monotonic() - begun)
            else:
                left_out += [f"{network} at batch {batch_size}" for network in together]
            ordered = sorted(cells, key=lambda cell: (options.networks.index(cell.network), cell.batch_size))
            rows = [cell.row() for cell in ordered]
            document |= {"rows": rows, "left_out": left_out, "seconds": time.monotonic() - started}
            keep(document, options.out)
        left_out += [f"{network}: {why}" for network, why in comparison.failed.items()]
        comparison.close()
    keep(document, options.out)
    return document


def waves(batch_sizes: Sequence[int], networks: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Which networks are prepared at the same time, at which batch size."""
    for batch_size in batch_sizes:
        at_once = len(networks) if batch_size <= LARGEST_TOGETHER else 2
        yield from ((batch_size, together) for together in groups(networks, at_once))


def groups(networks: Sequence[str], at_once: int) -> Iterator[Sequence[str]]:
    """So many networks at once."""
    for first in range(0, len(networks), at_once):
        yield networks[first : first + at_once]


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(word) for word in text.split(","))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text}: positive whole numbers with commas between")
    return numbers


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--torch-python", required=True, metavar="TORCH_PYTHON")
    parser.add_argument("--batch-sizes", type=_numbers)
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--small-images", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--width", type=int)
    parser.add_argument("--blocks", type=_numbers)
    parser.add_argument("--steps-per-call", type=int)
    parser.add_argument("--compile-mode", default="default", help="of torch.compile")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turn-seconds", type=float, default=0.5)
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything; cells beyond are left out")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the table as JSON and Markdown")
    options = parser.parse_args()
    if shutil.which(options.torch_python) is None:
        parser.error(f"--torch-python {options.torch_python}: there is no such program")
    if options.rounds < 1 or options.turn_seconds <= 0 or options.minutes <= 0:
        parser.error("--rounds, --turn-seconds and --minutes must be positive")
    return _completed(options)


def _completed(options: argparse.Namespace) -> argparse.Namespace:
    """What is not said follows from the device."""
    # A process of its own: this one must not hold the GPU.
    asked = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    backend = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]
    defaults = ON_CPU if backend == "cpu" else ON_GPU
    for each, value in defaults.items():
        if getattr(options, each) in (None, []):
            setattr(options, each, value)
    options.device = "cpu" if backend == "cpu" else "cuda"
    return options


def main() -> None:
    """Parse, compare, and print the table."""
    os.environ.update(with_kept_memory(os.environ))
    document = compare(_arguments())
    print(report(document) if "device" in document else f"error: {'; '.join(document['left_out'])}")
    if not any(row["ratios"] for row in document["rows"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
