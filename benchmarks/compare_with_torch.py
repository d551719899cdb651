"""Compare training with PyTorch and timm on this machine: one command, one run, in turn, within ten minutes.

    python benchmarks/compare_with_torch.py --torch-python TORCH_PYTHON [NETWORK...] [--batch-sizes 24,96]
        [--precision bfloat16] [--image-size N] [--small-images] [--width N] [--blocks A,B,C,D] [--classes N]
        [--minutes 9.5] [--rounds 3] [--turn-seconds T] [--out FOLDER]

TORCH_PYTHON is the interpreter of an environment that has torch and timm (for a GPU: torch's build for it); the
docstring of training_step.py says how to make one.

On a GPU: ResNet-50, ResNeXt-50, Res2Net-50 and Res2NeXt-50 at 224 x 224 in bfloat16 (autocast on PyTorch's side), at
batches 96, 24, 256, 48 and 72. On a CPU: two small networks at 32 x 32 in float32, at batches 24 and 96. PyTorch runs
in three variants: eager, channels-last, and channels-last through torch.compile. Our side is the compiled call of a
run, on images that are on the device, with as many steps in a call as in a run. Both sides train the same network
(their parameters are counted), with SGD with momentum and weight decay, and use the same threads; ours also gathers and
normalises its batches. A ratio is PyTorch's time over ours, the median over the rounds: above 1, ours is faster.

How the time is spent (--minutes, 9.5 by default): first everything is compiled, on a GPU in several processes for each
network (lanes), all at the same time; each takes its batch sizes one after the other, the most informative first, and
starts none that would end too late if it took as long as the one before. Then nothing else runs, and the cases (a
network at a batch size) are measured, one after the other: in each of 3 rounds every variant has a turn of
--turn-seconds, or of one call if that takes longer. The table lists what was not ready, or found no time. On a CPU the
networks are taken one after the other.
"""

import argparse
import contextlib
import datetime
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from compared_cases import OURS, TORCH_VARIANTS, Case, Key, keep, name, report, unwritable_reason
from lane import Job, Lane, log, prepare_all
from worker import Worker, WorkerError

from stepwise_jax.runtime.process import with_malloc_settings

ON_GPU = {
    "networks": ["resnet50", "resnext50_32x4d", "res2net50_26w_4s", "res2next50"],
    "batch_sizes": (96, 24, 256, 48, 72),
    "precision": "bfloat16",
    "image_size": 224,
    "classes": 1000,
    "steps_per_call": 32,
    "small_images": False,
    "turn_seconds": 0.3,
}
ON_CPU = {
    "networks": ["resnet_small", "res2net_small"],
    "batch_sizes": (24, 96),
    "precision": "float32",
    "image_size": 32,
    "classes": 10,
    "steps_per_call": 1,
    "small_images": True,
    "turn_seconds": 0.5,
}
_START_SECONDS, _GRACE_SECONDS = 120, 40


class LibraryComparison:
    """The processes of some networks, and their cases."""

    def __init__(self, options: argparse.Namespace, networks: Sequence[str], end: float):
        self._options, self._networks, self._end = options, networks, end
        self.described: dict[str, Any] = {}
        self.failed: dict[str, str] = {}
        self._lanes = [self._lane(network, *each) for network in networks for each in lanes(options)]
        for network in networks:
            self._describe_sides(network)
        self._lanes = [lane for lane in self._lanes if lane.network not in self.failed]

    def _lane(self, network: str, library: str, jobs: Sequence[Job]) -> Lane:
        options = self._options
        shared = ("image_size", "classes", "small_images", "width", "blocks", "precision", "steps_per_call")
        setup = {each: getattr(options, each) for each in (*shared, "compile_mode", "device")}
        python = sys.executable if library == "jax" else options.torch_python
        # Several processes share the GPU, so none may reserve its memory, nor compile on every core.
        at_once = max(1, (os.cpu_count() or 1) // (2 * len(self._networks)))
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TORCHINDUCTOR_COMPILE_THREADS": str(at_once)}
        worker = Worker(python, {"library": library, "network": network, **setup}, environment)
        return Lane(network, library, worker, jobs)

    def _describe_sides(self, network: str) -> None:
        """Lets all processes describe themselves, and checks that they train the same network."""
        found: dict[str, Any] = {}
        made = [lane for lane in self._lanes if lane.network == network]
        try:
            for lane in made:
                lane.worker.send("describe")
            for lane in made:
                found[lane.library] = lane.worker.receive(min(_START_SECONDS, self._end - time.monotonic()))
            counts = [each.pop("parameters") for each in found.values()]
            if len(set(counts)) > 1:
                raise WorkerError(f"the networks differ: {counts[0]:,} parameters here, {counts[1]:,} in PyTorch's")
            versions = {**found["jax"]["versions"], **found["torch"]["versions"]}
            self.described = {**found["jax"], "versions": versions}
        except WorkerError as error:
            self.failed[network] = str(error)
            for lane in made:
                lane.worker.stop()

    def run(self) -> Iterator[Case]:
        """Prepares everything, then measures case after case while there is time.

        One network after the other: JAX's processes keep their memory, and end with their network.
        """
        options = self._options
        turns = options.rounds * sum(len(lane.jobs) for lane in self._lanes)
        deadline = self._end - 2 * turns * options.turn_seconds
        prepare_all(self._lanes, deadline, min(deadline + _GRACE_SECONDS, self._end))
        longest = 0.0
        for network in self._networks:
            made = [lane for lane in self._lanes if lane.network == network]
            for batch_size in options.batch_sizes if made else ():
                started, case = time.monotonic(), Case(network, batch_size, made)
                if started + longest < self._end:
                    self._measure(case)
                longest = max(longest, time.monotonic() - started)
                yield case
            for lane in made:
                lane.worker.stop()

    def close(self) -> None:
        """Ends all processes."""
        for lane in self._lanes:
            lane.worker.stop()

    def _measure(self, case: Case) -> None:
        self._set_turn_lengths(case)
        for _ in range(self._options.rounds if case.steps else 0):
            self._take_round(case)
        for lane in set(case.ready.values()):
            # The turn of a process that does not reply has recorded the error.
            with contextlib.suppress(WorkerError):
                lane.request(_START_SECONDS, "drop", case.batch_size)

    def _set_turn_lengths(self, case: Case) -> None:
        """Sets the steps of a turn from the time of one call: when it was prepared, other processes were running."""
        for key in list(case.ready):
            once = self._steps_in_call(key)
            if taken := self._turn(case, key, once):
                case.steps[key] = once * max(1, round(self._options.turn_seconds / (taken["wall"] * once)))

    def _steps_in_call(self, key: Key) -> int:
        return self._options.steps_per_call if key[0] == "jax" else 1

    def _take_round(self, case: Case) -> None:
        turns = {key: self._turn(case, key, steps) for key, steps in list(case.steps.items())}
        case.rounds.append({key: taken for key, taken in turns.items() if taken})

    def _turn(self, case: Case, key: Key, steps: int) -> dict[str, float] | None:
        # The first step after a pause waits for memory; in a call of many steps this does not matter.
        uncounted = 1 if self._steps_in_call(key) == 1 else 0
        try:
            left = self._end + _GRACE_SECONDS - time.monotonic()
            return case.ready[key].request(left, "turn", case.batch_size, key[1], uncounted, steps)
        except WorkerError as error:
            case.errors[name(key)] = str(error)
            case.steps.pop(key, None)
            return None


def lanes(options: argparse.Namespace) -> list[tuple[str, list[Job]]]:
    """The jobs of each process of a network, in order: (library, jobs).

    On a GPU compiling takes most of the time, and mostly one core for each step: so two processes of each side share
    the batch sizes. PyTorch's variants without compilation come last, in the process that has fewer sizes.
    """
    sizes = options.batch_sizes
    if options.device == "cpu":
        return [("jax", _jobs(sizes, OURS)), ("torch", _jobs(sizes, TORCH_VARIANTS))]
    halves = [half for half in (sizes[0::2], sizes[1::2]) if half]
    torch = [_jobs(half, ("compiled",)) for half in halves]
    torch[-1] += _jobs(sorted(sizes), ("eager", "channels_last"))
    return [*(("jax", _jobs(half, OURS)) for half in halves), *(("torch", jobs) for jobs in torch)]


def _jobs(batch_sizes: Sequence[int], variants: Sequence[str]) -> list[Job]:
    return [(batch_size, variant) for batch_size in batch_sizes for variant in variants]


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measures every case there is time for, and writes the results so far after each."""
    started = time.monotonic()
    cases: list[Case] = []
    left_out: list[str] = []
    document: dict[str, Any] = {"date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    document |= {each: getattr(options, each) for each in ("precision", "image_size", "classes", "small_images")}
    document |= {each: getattr(options, each) for each in ("width", "blocks", "steps_per_call", "compile_mode")}
    parts = groups(options.networks, 1 if options.device == "cpu" else len(options.networks))
    for place, networks in enumerate(parts):
        left = started + 60 * options.minutes - time.monotonic()
        comparison = LibraryComparison(options, networks, time.monotonic() + left / (len(parts) - place))
        document |= comparison.described
        for network, why in comparison.failed.items():
            left_out += [f"{network} at batch {each}" for each in options.batch_sizes] + [f"{network}: {why}"]
        with contextlib.closing(comparison):
            for case in comparison.run():
                cases += [case] if case.rounds else []
                left_out += [] if case.rounds else [f"{case.network} at batch {case.batch_size}"]
                log(f"{case.network} at batch {case.batch_size}: {'measured' if case.rounds else 'left out'}")
                document |= {"rows": rows(cases, options.networks), "seconds": time.monotonic() - started}
                keep(document | {"left_out": left_out}, options.out)
    document |= {"rows": rows(cases, options.networks), "left_out": left_out, "seconds": time.monotonic() - started}
    keep(document, options.out)
    return document


def rows(cases: Sequence[Case], networks: Sequence[str]) -> list[dict[str, Any]]:
    """The rows in the order of the table."""
    ordered = sorted(cases, key=lambda case: (networks.index(case.network), case.batch_size))
    return [case.row() for case in ordered]


def groups(networks: Sequence[str], at_once: int) -> list[Sequence[str]]:
    """The networks in groups of `at_once`."""
    return [networks[first : first + at_once] for first in range(0, len(networks), at_once)]


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: a positive whole number")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(_number(word) for word in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text}: positive whole numbers with commas between") from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--torch-python", required=True, metavar="TORCH_PYTHON")
    parser.add_argument("--batch-sizes", type=_numbers)
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--image-size", type=_number)
    parser.add_argument("--classes", type=_number)
    parser.add_argument("--small-images", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--width", type=_number)
    parser.add_argument("--blocks", type=_numbers)
    parser.add_argument("--steps-per-call", type=_number)
    parser.add_argument("--compile-mode", default="default", help="of torch.compile")
    parser.add_argument("--rounds", type=_number, default=3)
    parser.add_argument("--turn-seconds", type=float, help="0.3 on a GPU, 0.5 on a CPU")
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything; cases beyond are left out")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the table as JSON and Markdown")
    options = parser.parse_args()
    if shutil.which(options.torch_python) is None:
        parser.error(f"--torch-python {options.torch_python}: there is no such program")
    lengths = (options.minutes, 1.0 if options.turn_seconds is None else options.turn_seconds)
    if not all(0 < each < math.inf for each in lengths):
        parser.error("--turn-seconds and --minutes must be positive")
    if options.out and (why := unwritable_reason(options.out)):
        parser.error(f"--out {options.out}: {why}")
    return _with_defaults(options)


def _with_defaults(options: argparse.Namespace) -> argparse.Namespace:
    """The options, with defaults that depend on the device."""
    # In a separate process: this one must not hold the GPU.
    command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    backend = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1]
    defaults = ON_CPU if backend == "cpu" else ON_GPU
    for each, value in defaults.items():
        if getattr(options, each) in (None, []):
            setattr(options, each, value)
    options.device = "cpu" if backend == "cpu" else "cuda"
    return options


def main() -> None:
    """Parse, compare, and print the table."""
    os.environ.update(with_malloc_settings(os.environ))
    try:
        document = compare(_arguments())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    print(report(document) if "device" in document else f"error: {'; '.join(document['left_out'])}")
    if not any(row["ratios"] for row in document["rows"]):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
