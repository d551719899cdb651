"""Compare the wall time of a step-wise run with its baseline's: 0.60 of the samples should take 0.60 of the time.

    python benchmarks/time_to_answer.py --data.root FOLDER [--epochs 1] [--config FILE] [--folder DIR] [--json]
                                        [--FIELD VALUE ...]

Both are processes of the real entry point that start without compiled programs: starting, compiling, checkpoints and
evaluation count. They take turns of some seconds and are stopped between them, so that other load on the machine
affects both; a run's wall time is that of its turns. The images are prepared before, once for both. Both score the test
set equally often: at the end of each stage, and at as many points of the baseline. FOLDER holds images, those of
`configs/cifar10_folder.py` for example.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stepwise_jax.cli.parsing.overrides import parse_fields
from stepwise_jax.data import datasets
from stepwise_jax.errors import InputError, StepwiseError, require
from stepwise_jax.experiment.config_files import load_config
from stepwise_jax.workdir import record_file
from stepwise_jax.workdir.records import TIME_KINDS

ROOT = Path(__file__).parents[1]
STAGES = 5
SAMPLES = 0.6
"""Of the baseline's."""
BOUND = 0.62
"""Of the baseline's wall time."""
TURN_SECONDS = 10.0


def make_empty(folder: Path) -> None:
    """Makes the folder if necessary; a run that is already in it would be resumed, not timed.

    Raises:
      InputError: if it cannot be made, or is not empty.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require(not any(folder.iterdir()), "--folder", str(folder), "an empty folder or a new one")
    except OSError as error:
        raise InputError(f"--folder is {str(folder)!r}: {error.strerror}") from error


def prepare(config: str, fields: Sequence[str]) -> None:
    """Prepares the data set, once for all runs, so that it counts for none."""
    experiment = parse_fields(load_config(str(ROOT / config)), fields, f"time_to_answer.py {config}")
    datasets.prepare(experiment.data, lambda *_: None)


class AlternatingRun:
    """One strategy as a process of the real entry point, which runs only in its turns."""

    def __init__(self, words: Sequence[str], folder: Path, turn_seconds: float):
        self.wall = 0.0
        self._folder, self._turn_seconds, self._process = folder, turn_seconds, None
        self._command = [sys.executable, "launch.py", "train", *words, "--workdir", str(folder)]

    def take_turn(self) -> None:
        """Continues the process for one turn.

        Raises:
          SystemExit: if it fails.
        """
        started = time.perf_counter()
        process = self._process = self._process or self._start()
        process.send_signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._turn_seconds)
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)
        self.wall += time.perf_counter() - started
        if process.poll():
            raise SystemExit(f"{self._folder.name} failed:\n{self._log.read_text()[-2000:]}")

    def is_done(self) -> bool:
        """Whether the process has ended."""
        return self._process is not None and self._process.poll() is not None

    def end(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def result(self) -> dict[str, Any]:
        """The costs: `wall` in seconds of its own turns, each kind as a share of the process's clock."""
        summary = json.loads((self._folder / "summary.json").read_text())
        whole = sum(summary["seconds"].values())
        return {
            "wall": self.wall,
            "scored": sum(row["top1"] is not None for row in record_file.read_records(self._folder).epochs),
            "shares": {kind: seconds / whole for kind, seconds in summary["seconds"].items()},
            **{name: summary[name] for name in ("samples", "updates", "top1")},
        }

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        environment["XDG_CACHE_HOME"] = str(self._folder.with_name(f"{self._folder.name}-kept"))
        with self._log.open("wb") as log:
            return subprocess.Popen(self._command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    @property
    def _log(self) -> Path:
        return self._folder.with_name(f"{self._folder.name}.log")


def make_runs(config: str, folder: Path, epochs: int, fields: Sequence[str]) -> dict[str, AlternatingRun]:
    """Both strategies, not yet started; turns are in proportion to samples, so that both end together."""
    common = [config, "--plan.epochs_per_stage", str(epochs), "--evaluation.every_epochs", str(epochs)]
    common += ["--plan.baseline_epochs", str(STAGES * epochs), "--plan.decay_every", str(max(1, epochs // 2))]
    return {
        name: AlternatingRun([*common, "--plan.strategy", name, *fields], folder / name, share * TURN_SECONDS)
        for name, share in (("stepwise", SAMPLES), ("baseline", 1.0))
    }


def run_in_turn(runs: Sequence[AlternatingRun]) -> None:
    """Runs all to their ends, one at a time; reports progress once a minute."""
    logged_at = time.perf_counter()
    try:
        while unfinished := [run for run in runs if not run.is_done()]:
            for run in unfinished:
                run.take_turn()
            if time.perf_counter() > logged_at + 60:
                logged_at = time.perf_counter()
                print(" and ".join(f"{run.wall:.0f} s" for run in runs), "so far", file=sys.stderr, flush=True)
    finally:
        for run in runs:
            run.end()


def show(result: dict[str, Any]) -> None:
    """Prints both costs side by side as Markdown."""
    ours, theirs = result["stepwise"], result["baseline"]
    rows = [("wall time (s)", ours["wall"], theirs["wall"])]
    rows += [(name, ours[name], theirs[name]) for name in ("samples", "updates", "scored")]
    print(f"\n{result['machine']}, {', '.join(f'{name} {of}' for name, of in result['versions'].items())}\n")
    print("| | step-wise | baseline | ratio |\n|---|---|---|---|")
    for name, first, second in rows:
        ratio = f"{first / second:.3f}"
        first, second = (f"{each:,.1f}" if isinstance(each, float) else f"{each:,}" for each in (first, second))
        print(f"| {name} | {first} | {second} | {ratio} |")
    for kind in TIME_KINDS:
        print(f"| {kind} (%) | {100 * ours['shares'][kind]:.1f} | {100 * theirs['shares'][kind]:.1f} | |")
    print(f"| top-1 (%) | {100 * ours['top1']:.2f} | {100 * theirs['top1']:.2f} | |")


def main() -> int:
    """Measures and prints; the status is 1 if the step-wise run takes more than its share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--epochs", type=int, default=1, help="epochs of each stage; a fifth of the baseline's (default: 1)"
    )
    parser.add_argument("--config", default="configs/cifar10_folder.py", help="(default: configs/cifar10_folder.py)")
    parser.add_argument("--folder", type=Path, help="where to keep both runs; by default a temporary folder")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    options, fields = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        try:
            make_empty(folder)
            prepare(options.config, fields)
        except StepwiseError as error:
            parser.error(str(error))
        runs = make_runs(options.config, folder, options.epochs, fields)
        run_in_turn(list(runs.values()))
        results = {name: run.result() for name, run in runs.items()}
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax")}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result = {"machine": machine, "versions": versions, **results}
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(result)
    return int(results["stepwise"]["wall"] > BOUND * results["baseline"]["wall"])


if __name__ == "__main__":
    sys.exit(main())
