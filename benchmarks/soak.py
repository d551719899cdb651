"""Kill a run of several stages repeatedly with SIGKILL, resume it, and compare it with an undisturbed one.

    python benchmarks/soak.py [--kills 50] [--seed 0] [--epochs 20] [--keep DIR] [--json] [--FIELD VALUE ...]

Both runs are processes of the real entry point: five stages on the digits with a small network. The moments are spread
over the whole run by the seed, and chosen by watching the run's folder from outside: inside a save, at a stage's end,
while a stage's program compiles, in the middle of steps, and while it starts. The exit status is 1 if the two runs
differ in anything.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stepwise_jax.workdir import record_file

ROOT = Path(__file__).parents[1]
FIELDS = "--data.image_size 16 --model.width 16 --plan.batch_size 16 --checkpoint.every_seconds 0.2 --steps_per_call 1"
LIMIT = 300.0
"""Seconds that one process may take until its kill."""


def command(workdir: Path, data_dir: Path, epochs: int, fields: Sequence[str]) -> list[str]:
    """The command with which a user starts and resumes the run."""
    words = ["--workdir", str(workdir), "--data.data_dir", str(data_dir), *FIELDS.split()]
    words += ["--plan.epochs_per_stage", str(epochs), "--plan.decay_every", str(epochs // 2)]
    return [sys.executable, "launch.py", "train", "configs/digits.py", *words, *fields]


class Watched:
    """A run seen from outside."""

    def __init__(self, workdir: Path):
        self._records, self._checkpoints = workdir / "records.jsonl", workdir / "checkpoints"
        self.workdir = workdir

    def saved(self) -> int:
        """Updates of the newest checkpoint, 0 without one."""
        steps = [int(path.name) for path in self._checkpoints.glob("*") if path.name.isdigit()]
        return max(steps, default=0)

    def saving(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(self._checkpoints.glob("[0-9]*.orbax-checkpoint-tmp"))

    def rows(self) -> list[dict[str, Any]]:
        """The complete lines of the records."""
        lines = self._records.read_bytes().split(b"\n")[:-1] if self._records.exists() else []
        return [json.loads(line) for line in lines]

    def ends(self) -> list[int]:
        """Updates after which a stage ends."""
        config = json.loads((self.workdir / "config.json").read_text())
        return np.cumsum([stage["updates"] for stage in config["stages"]]).tolist()


STAGE_END, LAST = "at a stage's end", "after the last checkpoint"
ANYWHERE = ("while it starts", "while a program compiles", "in the middle of steps", "inside a save")


def plan_kills(kills: int, ends: list[int], generator: random.Random) -> list[tuple[int, str]]:
    """Updates and kinds of moments, in order: one at each stage's end, one after the last, the others anywhere."""
    fixed = [(ends[-1], LAST)] + [(end, STAGE_END) for end in ends[:-1]]
    fixed = fixed[: max(1, kills // 3)]
    # None in the last epochs: a finished run cannot be killed.
    others = [
        (int(generator.uniform(0, 0.9 * ends[-1])), ANYWHERE[number % len(ANYWHERE)])
        for number in range(kills - len(fixed))
    ]
    return sorted(fixed + others)


def moment(watched: Watched, update: int, kind: str, before: int, generator: random.Random) -> Callable[[], bool]:
    """A function that says whether it is time to kill a process that started with `before` recorded rows."""

    def new() -> list[dict[str, Any]]:
        return watched.rows()[before:]

    def has_started() -> bool:
        return any(row["kind"] == "stage" for row in new())

    pause, started, starting = generator.uniform(0, 0.1), time.monotonic(), generator.uniform(0.2, 4)
    reached = {
        "while it starts": lambda: time.monotonic() - started > starting,
        "while a program compiles": lambda: bool(new()) and new()[-1]["kind"] == "stage",
        "in the middle of steps": lambda: watched.saved() >= update and has_started() and not time.sleep(pause),
        "inside a save": lambda: watched.saved() >= update and has_started() and watched.saving(),
        # If it was reached before, as soon as the process trains: its first record is the one from which it resumes.
        STAGE_END: lambda: any(row["kind"] == "epoch" and row["updates"] >= update for row in new()),
        LAST: lambda: watched.saved() >= update,
    }
    return reached[kind]


def kill(words: list[str], watched: Watched, update: int, kind: str, generator: random.Random) -> str | None:
    """Starts or resumes the run, and kills it at the first moment of a kind from `update` on.

    Returns:
      The moment of the kill, according to the folder, or None if the run ended before.
    """
    before = len(watched.rows())
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr)
        deadline, is_time = time.monotonic() + LIMIT, moment(watched, update, kind, before, generator)
        while not is_time():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                stderr.seek(0)
                if process.wait() == 0:
                    return None
                raise SystemExit(f"the run ended with {process.returncode} before the kill ({kind}):\n{stderr.read()}")
            time.sleep(0.0005)
        process.kill()
        process.wait()
    return locate_kill(watched, before)


def locate_kill(watched: Watched, before: int) -> str:
    """Where a killed process was, from what it left on disk: not the intended moment, but the actual one."""
    rows = watched.rows()[before:]
    if not any(row["kind"] == "stage" for row in rows):
        return "while it started"
    saving = ", inside a save" if watched.saving() else ""
    if rows[-1]["kind"] == "stage":
        return "while a stage's program compiled, or before its first step" + saving
    if watched.saved() == watched.ends()[-1]:
        return "between the last checkpoint and the summary" + saving
    if rows[-1]["kind"] == "epoch" and rows[-1]["updates"] in watched.ends():
        return "at a stage's end" + saving
    return "in the middle of an epoch" + saving


def outcome(workdir: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on kills."""
    summary = json.loads((workdir / "summary.json").read_text())
    with np.load(workdir / "predictions.npz") as file:
        predictions = {name: file[name].tobytes() for name in sorted(file.files)}
    epochs = record_file.without_seconds(record_file.read_records(workdir).epochs)
    return {"state_sha256": summary["state_sha256"], "records": epochs, "predictions": predictions}


def finish(words: list[str]) -> None:
    """Lets the run finish.

    Raises:
      SystemExit: if it fails.
    """
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the run failed with {done.returncode}:\n{done.stderr}")


def soak(
    folder: Path, kills: int, seed: int, make_words: Callable[[Path], list[str]], log: Callable[[str], None]
) -> dict[str, Any]:
    """Runs both, and returns the kills by moment and the differences; `make_words` makes the command of a workdir."""
    generator, started = random.Random(seed), time.monotonic()
    finish(make_words(folder / "undisturbed"))
    undisturbed, ends = outcome(folder / "undisturbed"), Watched(folder / "undisturbed").ends()
    total = ends[-1]
    log(f"undisturbed: {total} updates, state {undisturbed['state_sha256'][:16]}, {time.monotonic() - started:.0f} s")
    killed, watched = folder / "killed", Watched(folder / "killed")
    words, hits = make_words(killed), []
    for number, (update, kind) in enumerate(plan_kills(kills, ends, generator), start=1):
        hit = kill(words, watched, update, kind, generator)
        if hit is None:
            log(f"the run ended before kill {number}")
            break
        hits.append(hit)
        log(f"kill {number} of {kills}: {hit}, {watched.saved()} of {total} updates saved")
    finish(words)
    after = outcome(killed)
    return {
        "kills": len(hits),
        "asked": kills,
        "seed": seed,
        "moments": dict(Counter(hits).most_common()),
        "differences": [name for name in undisturbed if undisturbed[name] != after[name]],
        "state_sha256": {"undisturbed": undisturbed["state_sha256"], "killed": after["state_sha256"]},
        "updates": total,
        "seconds": round(time.monotonic() - started),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "orbax-checkpoint")),
    }


def main() -> int:
    """Prints the result; 0 if the runs are the same to the bit and every kill took place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="(default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--epochs", type=int, default=20, help="of each of the five stages (default: 20)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="an empty folder for both runs; by default a temporary one"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options, fields = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)

        def make_words(workdir: Path) -> list[str]:
            return command(workdir, folder / "data", options.epochs, fields)

        def log(text: str) -> None:
            print(text, file=sys.stderr, flush=True)

        found = soak(folder, options.kills, options.seed, make_words, log)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{found['kills']} kills, {len(found['differences'])} differences {found['differences'] or ''}".rstrip())
        for moment, count in found["moments"].items():
            print(f"  {count:3} {moment}")
        for name, digest in found["state_sha256"].items():
            print(f"  {digest} {name}")
        print(f"  seed {found['seed']}, {found['updates']} updates, {found['seconds']} s, {found['machine']}")
    return 0 if not found["differences"] and found["kills"] == found["asked"] else 1


if __name__ == "__main__":
    sys.exit(main())
