"""Measure how long `report` takes: of one run, of many runs beside each other, and of a comparison.

    python benchmarks/report_speed.py FOLDER [--runs 240] [--beside 35] [--images 1000] [--classes 10] [--epochs 20]

Writes a comparison of the eight default strategies into FOLDER, as training would leave it: the plans are real, scores
and predictions are drawn at random, the same ones each time. A folder that exists is used as it is. Then it times the
command in fresh processes: of the first run, of the first `--beside` runs, and of the comparison.
"""

import argparse
import dataclasses
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from stepwise_jax import ExperimentConfig, PlanConfig  # noqa: E402
from stepwise_jax.experiment.serialization import override_fields  # noqa: E402
from stepwise_jax.plans.planning import make_plan  # noqa: E402
from stepwise_jax.plans.stage import Stage, learning_rate_at, noise_scale, stage_to_dict  # noqa: E402
from stepwise_jax.studies import comparison, comparison_folder  # noqa: E402
from stepwise_jax.studies.variants import default_names  # noqa: E402
from stepwise_jax.workdir.files import CONFIG, PREDICTIONS, SUMMARY  # noqa: E402
from stepwise_jax.workdir.folder import config_document  # noqa: E402
from stepwise_jax.workdir.json_files import write_json  # noqa: E402
from stepwise_jax.workdir.predictions import Ranking, write_predictions  # noqa: E402
from stepwise_jax.workdir.record_file import RecordWriter  # noqa: E402
from stepwise_jax.workdir.records import EpochRecord, StageRecord  # noqa: E402

EXAMPLES = 50_000
SECONDS = {"train": 6.0, "input_wait": 0.5, "compile": 2.0, "evaluate": 1.0, "checkpoint": 0.5}


def write_comparison(root: Path, options: argparse.Namespace) -> None:
    """Write a comparison of the default strategies whose runs are all finished."""
    plan = PlanConfig(epochs_per_stage=options.epochs, baseline_epochs=2 * options.epochs)
    experiment = ExperimentConfig(plan=plan)
    arms = comparison.choose_arms(default_names(experiment), "made.py", experiment, {})
    compared = comparison.Comparison("made.py", experiment, arms, tuple(range(-(-options.runs // len(arms)))))
    comparison_folder.open_comparison_folder(root, compared)
    for arm in arms:
        for seed in compared.seeds:
            own = dataclasses.replace(override_fields(experiment, dict(arm.changes)), seed=seed)
            write_run(compared.run_folder(root, arm.name, seed), own, options)


def write_run(folder: Path, experiment: ExperimentConfig, options: argparse.Namespace) -> None:
    """Write the folder of a finished run."""
    random = np.random.default_rng([experiment.seed, *folder.parent.name.encode()])
    stages = make_plan(experiment.plan, EXAMPLES, experiment.optimizer)
    folder.mkdir(parents=True)
    write_json(folder / CONFIG, config_document(experiment, stages, "made.py", None, "1 x cpu"))
    labels = np.arange(options.images) % options.classes
    ranking = draw_ranking(random, labels, options.classes)
    rows = epoch_records(random, stages, float(np.mean(ranking.label_ranks == 0)))
    with RecordWriter(folder) as writer:
        for place, stage in enumerate(stages, start=1):
            writer.append(stage_record(place, stage))
        for row in rows:
            writer.append(row)
    ids, classes = [f"test_{row:07d}" for row in range(options.images)], [f"class {i}" for i in range(options.classes)]
    write_predictions(folder / PREDICTIONS, ids, labels, classes, ranking)
    write_json(folder / SUMMARY, summary(rows, stages, options.images))


def draw_ranking(random: np.random.Generator, labels: np.ndarray, classes: int) -> Ranking:
    """Predictions of which three quarters are correct."""
    kept, count = min(10, classes), len(labels)
    first = np.where(random.random(count) < 0.75, 0, random.integers(1, kept, count))
    offsets = (np.arange(kept) + first[:, None]) % kept
    probabilities = -np.sort(-random.dirichlet(np.full(kept, 0.3), count).astype(np.float32), axis=1)
    ranks = np.argmin(offsets, axis=1)
    top = ((labels[:, None] + offsets) % classes).astype(np.int32)
    return Ranking(top, probabilities, ranks.astype(np.int32), probabilities[np.arange(count), ranks])


def stage_record(place: int, stage: Stage) -> StageRecord:
    """The record of a stage's start."""
    fields = stage_to_dict(stage)
    shared = {item.name: fields[item.name] for item in dataclasses.fields(StageRecord) if item.name in fields}
    return StageRecord(stage=place, split=f"train[:{stage.examples}]", sha256=f"{place:064x}", **shared)


def epoch_records(random: np.random.Generator, stages: Sequence[Stage], reached: float) -> list[EpochRecord]:
    """The records of all epochs, whose last top-1 is `reached`."""
    rows: list[EpochRecord] = []
    step = seen = 0
    for place, stage in enumerate(stages, start=1):
        for epoch in range(1, stage.epochs + 1):
            step, seen = step + stage.updates_per_epoch, seen + stage.updates_per_epoch * stage.batch_size
            last = (place, epoch) == (len(stages), stage.epochs)
            top1 = reached if last else reached * (1 - 0.8 / (1 + len(rows))) + 0.01 * random.random()
            rate, loss = learning_rate_at(stage, epoch), float(2.2 / (1 + len(rows)) + 0.1 * random.random())
            scores: dict[str, Any] = {"top1": top1, "top5": (1 + top1) / 2, "best_top1": top1}
            counts: dict[str, Any] = {"step": step, "examples_seen": seen, "updates": step}
            plan: dict[str, Any] = {"learning_rate": rate, "batch_size": stage.batch_size}
            metrics = {"top1": top1, "top5": (1 + top1) / 2, "loss": loss}
            losses = {"train_loss": 0.8 * loss, "test_loss": loss, "noise_scale": noise_scale(stage, rate)}
            place_of_row: dict[str, Any] = {"stage": place, "stage_name": stage.name, "epoch": epoch}
            rows.append(
                EpochRecord(**place_of_row, **counts, **plan, **losses, **scores, metrics=metrics, seconds=SECONDS)
            )
    return rows


def summary(rows: Sequence[EpochRecord], stages: Sequence[Stage], images: int) -> dict[str, Any]:
    """The contents of `summary.json`."""
    last = rows[-1]
    return {
        **{name: getattr(last, name) for name in ("top1", "top5", "best_top1", "metrics", "updates")},
        "test_images": images,
        "samples": sum(stage.samples for stage in stages),
        "flops": 1e12,
        "seconds": {kind: len(rows) * seconds for kind, seconds in SECONDS.items()},
        "stages": [{"name": stage.name} for stage in stages],
        "state_sha256": "ab" * 32,
    }


def measure(folders: Sequence[Path], out: Path) -> tuple[float, float]:
    """Seconds and CPU seconds of `report` in a fresh process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    words = [sys.executable, str(ROOT / "launch.py"), "report", *map(str, folders), "--out", str(out)]
    subprocess.run(words, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Write the folder, measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=240)
    parser.add_argument("--beside", type=int, default=35)
    parser.add_argument("--images", type=int, default=1000, help="test images of a run")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20, help="of a stage")
    options = parser.parse_args()
    root = options.folder / "comparison"
    if not root.exists():
        write_comparison(root, options)
    runs = sorted(path.parent for path in root.glob(f"*/*/{SUMMARY}"))
    cases = {"one run": runs[:1], f"{options.beside} runs": runs[: options.beside], f"{len(runs)} compared": [root]}
    print("| report of | seconds | CPU seconds |\n|---|---|---|")
    for name, folders in cases.items():
        seconds, cpu = measure(folders, options.folder / "report" / name)
        print(f"| {name} | {seconds:.1f} | {cpu:.1f} |", flush=True)


if __name__ == "__main__":
    main()
