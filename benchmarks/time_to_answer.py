"""The wall time of a step-wise run beside that of its baseline: 0.60 of the samples should take 0.60 of the time.

    python benchmarks/time_to_answer.py --data.root FOLDER [--epochs 1] [--config FILE] [--folder DIR] [--json]
                                        [--FIELD VALUE ...]

Both are processes of the real entry point, one after the other, that begin without compiled programs: starting,
compiling, checkpoints and evaluation count. The images are prepared before, once for both. Both score the test set
equally often: at the end of each stage, and at as many points of the baseline. FOLDER holds the images of
`configs/cifar10_folder.py`, say.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stepwise_jax import datasets, records
from stepwise_jax.command_line import load_config, parse_fields
from stepwise_jax.errors import StepwiseError

ROOT = Path(__file__).parents[1]
STAGES = 5
BOUND = 0.62
"""Of the baseline's wall time, at 0.60 of its samples."""


def prepare(config: str, fields: Sequence[str]) -> None:
    """Makes the data set ready, which is done once for all runs and so is nobody's time."""
    experiment = parse_fields(load_config(str(ROOT / config)), fields, f"time_to_answer.py {config}")
    datasets.prepare(experiment.data, lambda *_: None)


def train(config: str, strategy: str, folder: Path, epochs: int, fields: Sequence[str]) -> dict[str, Any]:
    """Trains one strategy in a process of its own; what it took, by the clock on the wall and by kind."""
    words = [
        "--plan.strategy",
        strategy,
        "--plan.epochs_per_stage",
        str(epochs),
        "--evaluation.every_epochs",
        str(epochs),
    ]
    words += ["--plan.baseline_epochs", str(STAGES * epochs), "--plan.decay_every", str(max(1, epochs // 2))]
    command = [sys.executable, "launch.py", "train", config, "--workdir", str(folder), *words, *fields]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    started = time.perf_counter()
    subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, "XDG_CACHE_HOME": str(folder.with_name(f"{folder.name}-kept"))},
        check=True,
    )
    wall = time.perf_counter() - started
    summary = json.loads((folder / "summary.json").read_text())
    scored = sum(row["top1"] is not None for row in records.read(folder).epochs)
    return {
        "wall": wall,
        "scored": scored,
        **{name: summary[name] for name in ("samples", "updates", "top1", "seconds")},
    }


def show(result: dict[str, Any]) -> None:
    """Both budgets side by side as Markdown."""
    ours, theirs = result["stepwise"], result["baseline"]
    rows = [("wall time (s)", ours["wall"], theirs["wall"])]
    rows += [(f"{kind} (s)", ours["seconds"][kind], theirs["seconds"][kind]) for kind in records.SECONDS]
    rest = [run["wall"] - sum(run["seconds"].values()) for run in (ours, theirs)]
    rows += [("starting, opening the data, ending (s)", *rest)]
    rows += [(name, ours[name], theirs[name]) for name in ("samples", "updates", "scored")]
    print(f"\n{result['machine']}, {', '.join(f'{name} {of}' for name, of in result['versions'].items())}\n")
    print("| | step-wise | baseline | ratio |\n|---|---|---|---|")
    for name, first, second in rows:
        ratio = f"{first / second:.3f}" if second else "-"
        first, second = (f"{each:,.1f}" if isinstance(each, float) else f"{each:,}" for each in (first, second))
        print(f"| {name} | {first} | {second} | {ratio} |")
    print(f"| top-1 (%) | {100 * ours['top1']:.2f} | {100 * theirs['top1']:.2f} | |")


def main() -> int:
    """Measures and prints; the status is 1 where the step-wise run takes more than its share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--epochs", type=int, default=1, help="epochs of each stage; a fifth of the baseline's (default: 1)"
    )
    parser.add_argument("--config", default="configs/cifar10_folder.py", help="(default: configs/cifar10_folder.py)")
    parser.add_argument("--folder", type=Path, help="where to keep both runs; by default a temporary folder")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options, fields = parser.parse_known_args()
    try:
        prepare(options.config, fields)
    except StepwiseError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        runs = {
            name: train(options.config, name, folder / name, options.epochs, fields)
            for name in ("stepwise", "baseline")
        }
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax")}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "versions": versions, **runs}
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return int(runs["stepwise"]["wall"] > BOUND * runs["baseline"]["wall"])


if __name__ == "__main__":
    sys.exit(main())
