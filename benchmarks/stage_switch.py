"""Measure the cost of a stage change: the stall, and the slowdown while the next stages compile.

    python benchmarks/stage_switch.py [--epochs 12] [--folder DIR] [--json] [--FIELD VALUE ...]

Three stages of a small Res2Net on the digits at 32 x 32, each longer than its step takes to compile. One
plan is trained twice, each time in a process of the real entry point and with one compilation cache, which is empty at
first. In the first run the later stages compile in the background; in the second nothing may be compiled, so its first
epochs show what the first run lost. Events of JAX's compilation cache are counted, with the time of each.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stepwise_jax.runtime.process import collect_garbage_rarely, restart_with_malloc_settings
from stepwise_jax.workdir import record_file

ROOT = Path(__file__).parents[1]
EVENTS = "events.json"
INNER = "--inner"
FIELDS = (
    "--model.name res2net_small --model.width 8 --data.image_size 32 --steps_per_call 1 "
    "--checkpoint.every_seconds 1000 --plan.fractions 0.8 0.9 1.0 --plan.batch_size 24 --plan.batch_multipliers 1 2 3"
)


def train_and_count(words: Sequence[str]) -> int:
    """Runs `launch.py` in this process; writes each event of the compilation cache into the workdir, with its time."""
    import jax.monitoring

    import launch

    seen: list[tuple[float, str]] = []

    def keep(event: str, **_: Any) -> None:
        if event.startswith("/jax/compilation_cache/"):
            seen.append((time.time(), event.rpartition("/")[2]))

    jax.monitoring.register_event_listener(keep)
    status = launch.main(words)
    folder = Path(words[words.index("--workdir") + 1])
    (folder / EVENTS).write_text(json.dumps(seen))
    return status


def run(folder: Path, cache: Path, epochs: int, fields: Sequence[str]) -> "RecordedRun":
    """Trains the plan in a separate process with its compilation cache in `cache`."""
    plan = ["--plan.epochs_per_stage", str(epochs), "--plan.decay_every", str(max(1, epochs // 2))]
    command = [sys.executable, __file__, INNER, "train", "configs/digits.py", "--workdir", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    words = [*command, *FIELDS.split(), *plan, "--evaluation.every_epochs", str(epochs), *fields]
    subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    return RecordedRun(folder)


class RecordedRun:
    """The records of a run, and its events of the compilation cache."""

    def __init__(self, folder: Path):
        records = record_file.read_records(folder)
        self.epochs = records.epochs
        self.events = records.events
        self.cache = [(at, name) for at, name in json.loads((folder / EVENTS).read_text())]

    def messages(self, name: str) -> list[str]:
        """The messages of one kind, in order."""
        return [event["message"] for event in self.events if event["name"] == name]

    def count_events(self, name: str) -> int:
        """Events of the compilation cache with this name."""
        return sum(each == name for _, each in self.cache)

    def last_miss(self) -> float | None:
        """Seconds from the start of training to the last program that was compiled; None if there was none."""
        misses = [at for at, name in self.cache if name == "cache_misses"]
        start = next(event["time"] for event in self.events if event["name"] == "start")
        return max(misses) - start if misses else None

    def step_seconds(self, stage: int) -> list[float]:
        """For each epoch of a stage, the seconds of its average step, waiting included."""
        done = [0, *(row["updates"] for row in self.epochs)]
        return [
            sum(row["seconds"][kind] for kind in ("train", "input_wait", "compile")) / (row["updates"] - before)
            for before, row in zip(done, self.epochs, strict=False)
            if row["stage"] == stage
        ]


def compare(first: RecordedRun, second: RecordedRun) -> list[dict[str, Any]]:
    """For each stage, its ordinary step, the stall before it and its seconds, in both runs."""
    stalls = [
        [float(re.findall(r"([\d.]+) ms", text)[0]) for text in run.messages("switch")] for run in (first, second)
    ]
    rows = []
    for stage in range(1, first.epochs[-1]["stage"] + 1):
        slow, plain = first.step_seconds(stage), second.step_seconds(stage)
        rows.append(
            {
                "stage": stage,
                "step_ms": 1000 * statistics.median(plain[1:] or plain),
                "stall_ms": [each[stage - 2] if stage > 1 else None for each in stalls],
                "seconds": [sum(each) / len(each) * _updates(first, stage) for each in (slow, plain)],
            }
        )
    return rows


def _updates(run: RecordedRun, stage: int) -> int:
    ends = {row["stage"]: row["updates"] for row in run.epochs}
    return ends[stage] - ends.get(stage - 1, 0)


def document(first: RecordedRun, second: RecordedRun) -> dict[str, Any]:
    """All results."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax")},
        "stages": compare(first, second),
        "compiled": [run.messages("compile") for run in (first, second)],
        "cache_misses": [run.count_events("cache_misses") for run in (first, second)],
        "cache_hits": [run.count_events("cache_hits") for run in (first, second)],
        "last_miss_seconds": [run.last_miss() for run in (first, second)],
    }


def show(result: dict[str, Any]) -> None:
    """Prints the tables as Markdown."""
    print(f"{result['machine']}, {', '.join(f'{name} {of}' for name, of in result['versions'].items())}\n")
    print("| stage | ordinary step | stall before it | the same, nothing to compile | seconds | the same | slower by |")
    print("|---|---|---|---|---|---|---|")
    for row in result["stages"]:
        stalls = ["-" if each is None else f"{each:.0f} ms" for each in row["stall_ms"]]
        slow, plain = row["seconds"]
        print(
            f"| {row['stage']} | {row['step_ms']:.0f} ms | {stalls[0]} | {stalls[1]} | {slow:.1f} | {plain:.1f} "
            f"| {100 * (slow / plain - 1):.0f} % |"
        )
    slow, plain = (sum(row["seconds"][run] for row in result["stages"]) for run in (0, 1))
    print(f"\nall stages: {slow:.1f} s against {plain:.1f} s, {100 * (slow / plain - 1):.1f} % more")
    for number, name in enumerate(("first", "second")):
        last = result["last_miss_seconds"][number]
        when = "" if last is None else f", the last {last:.1f} s after the start"
        print(f"\n{name} run: {result['cache_misses'][number]} cache misses{when}, {result['cache_hits'][number]} hits")
        for text in result["compiled"][number]:
            print(f"  {text}")


def main() -> int:
    """Measures and prints; the status is 1 if the second run compiled anything."""
    if sys.argv[1:2] == [INNER]:
        restart_with_malloc_settings()
        collect_garbage_rarely()
        return train_and_count(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each stage (default: 12)")
    parser.add_argument("--folder", type=Path, help="where to keep both runs; by default a temporary folder")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options, fields = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        first, second = (run(folder / name, folder / "cache", options.epochs, fields) for name in ("first", "second"))
        result = document(first, second)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return int(result["cache_misses"][1] > 0)


if __name__ == "__main__":
    sys.exit(main())
