"""Measure how the start of a run grows with the number of examples: seconds, CPU seconds, peak memory.

    python benchmarks/growth.py --data-dir FOLDER [--examples 10000,100000,1280000] [--classes 10] [--limit 300]
    python benchmarks/growth.py --data-dir FOLDER --image-folders --classes 1000 --limit 3600

Writes a data set of tiny images for each number, once, in FOLDER, and then starts each command in a fresh process:

- `train, first`: to the first step, with streamed images and a tiny network, of a data set that nobody has opened yet;
- `train`: the same again, in a new workdir;
- `evaluate`: of the run that `train` finished, on a twenty-fifth as many test images;
- `train, finished`: of that run, where nothing is left to do;
- `plan`: of the same experiment.

The first two end with the first step's record, so the seconds of a whole epoch do not count. With `--image-folders`,
the data sets are folders of JPEGs of 16 x 16 pixels, a fifth of which become the test split, and the commands are
`plan`, `prepare`, the same again, and the two of `train`. This file is also the configuration file of its commands.
"""

import argparse
import hashlib
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import flax.linen as nn  # noqa: E402
import numpy as np  # noqa: E402

from stepwise_jax import DataConfig, ExperimentConfig, ModelConfig, PlanConfig  # noqa: E402
from stepwise_jax.plans.stage import Stage  # noqa: E402

SIDE = 8
STEP = 128
TEST_SHARE = 25
HEADER = ("command", "examples", "seconds", "CPU seconds", "peak memory, MB")


class TinyNetwork(nn.Module):
    """The mean of each channel, and a classifier."""

    num_classes: int

    @nn.compact
    def __call__(self, images: Any, train: bool) -> Any:
        """Images float32 [b, H, W, 3], normalised, to logits [b, num_classes]."""
        del train
        return nn.Dense(self.num_classes)(images.mean(axis=(1, 2)))


def one_update(plan: PlanConfig, examples: int) -> tuple[Stage, ...]:
    """One stage of one update, whose examples are drawn from the whole set."""
    shared = {"batch_size": STEP, "learning_rate": plan.learning_rate, "epochs": 1}
    return (Stage(name="O", fraction=STEP / examples, examples=STEP, draw="redrawn", **shared),)


def get_config() -> ExperimentConfig:
    """One update of the tiny network, on streamed images."""
    return ExperimentConfig(
        data=DataConfig(image_size=SIDE, delivery="streamed"),
        model=ModelConfig(name=TinyNetwork),
        plan=PlanConfig(strategy=one_update),
    )


def write_set(folder: Path, name: str, examples: int, classes: int) -> None:
    """Write a prepared data set: the files of a small one, with other records in them and their numbers corrected."""
    from stepwise_jax.data.prepared import writing
    from stepwise_jax.data.source import Source, SourceSplit

    counts = {"train": examples, "test": max(100, examples // TEST_SHARE)}
    small = {split: SourceSplit((f"{split}_0",), (0,)) for split in counts}
    names, shape = tuple(f"class {label}" for label in range(classes)), (SIDE, SIDE, 1)

    def read(name: str) -> np.ndarray:
        return np.full(shape, len(name), np.uint8)

    source = Source(name, "1.0.0", names, "benchmarks/growth.py", small, read, shape, SIDE * SIDE)
    writing.prepare(source, folder, lambda *_: None)
    target = folder / f"stepwise_{name}" / "1.0.0"
    written = {split: write_records(target, split, count, classes) for split, count in counts.items()}
    correct_numbers(target, counts, written)


def write_folder(root: Path, examples: int, classes: int) -> None:
    """Write a folder of images, all of them different, unless it is there."""
    for label in range(0 if root.exists() else classes):
        folder, draw = root / f"n{label:08d}", np.random.default_rng(label)
        folder.mkdir(parents=True)
        for row in range(examples // classes):
            pixels = draw.integers(0, 256, (2 * SIDE, 2 * SIDE, 3), np.uint8)
            _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 60])
            (folder / f"{folder.name}_{row:05d}.JPEG").write_bytes(encoded.tobytes())


def write_records(target: Path, split: str, count: int, classes: int) -> tuple[int, str]:
    """Write the records of a split in place of those there; return their bytes and the hash of their images."""
    from array_record.python.array_record_module import ArrayRecordWriter

    (path,) = target.glob(f"*-{split}.array_record-*")
    path.unlink()
    writer, size, digest = ArrayRecordWriter(str(path), "group_size:1"), 0, hashlib.sha256()
    for record, content in records(split, count, classes):
        writer.write(record)
        size += len(record)
        digest.update(hashlib.sha256(content).digest())
    writer.close()
    return size, digest.hexdigest()


def records(split: str, count: int, classes: int) -> Iterator[tuple[bytes, bytes]]:
    """The records of a split, and their images."""
    from tensorflow_datasets.proto import tf_example_pb2

    images = np.random.default_rng(len(split)).integers(0, 256, (4096, SIDE * SIDE), np.uint8)
    for row in range(count):
        content = row.to_bytes(8, "little") + images[row % len(images), 8:].tobytes()
        features = tf_example_pb2.Example().features.feature  # pyright: ignore
        features["image"].bytes_list.value.append(content)
        features["label"].int64_list.value.append(row % classes)
        features["id"].bytes_list.value.append(b"%s_%07d" % (split.encode(), row))
        example = tf_example_pb2.Example()  # pyright: ignore
        for name, feature in features.items():
            example.features.feature[name].CopyFrom(feature)
        yield example.SerializeToString(), content


def correct_numbers(target: Path, counts: dict[str, int], written: dict[str, tuple[int, str]]) -> None:
    """Make the metadata those of the records that were written."""
    info = json.loads((target / "dataset_info.json").read_text())
    for split in info["splits"]:
        split["shardLengths"] = [str(counts[split["name"]])]
        split["numBytes"] = str(written[split["name"]][0])
    (target / "dataset_info.json").write_text(json.dumps(info))
    metadata = json.loads((target / "metadata.json").read_text())
    metadata["content_sha256"] = {split: digest for split, (_, digest) in written.items()}
    (target / "metadata.json").write_text(json.dumps(metadata))


def until_first_step(words: Sequence[str], workdir: Path) -> None:
    """Train until the first step is done, and print the seconds since the process started, its CPU and its memory."""
    from stepwise_jax import train
    from stepwise_jax.cli.parsing.overrides import load_experiment

    def observe(record: Any) -> None:
        if record.kind == "steps":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            seconds = time.time() - float(os.environ["GROWTH_STARTED"])
            print(json.dumps([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000]), flush=True)

    experiment = load_experiment(__file__, words, "train")
    for _ in train(experiment, workdir=workdir, observers=[observe]):
        pass


def measure(command: Sequence[str], limit: float) -> tuple[float, float, float]:
    """Seconds, CPU seconds and megabytes of a command in a fresh process."""
    environment = {**os.environ, "GROWTH_STARTED": str(time.time()), "JAX_PLATFORMS": "cpu"}
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["/usr/bin/env", "time", "-f", "%M"] if shutil.which("time") else []
    done = subprocess.run([*words, sys.executable, *command], env=environment, capture_output=True, timeout=limit)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stderr.decode()[-2000:]}")
    if "--worker" in command:
        return tuple(json.loads(done.stdout.splitlines()[0]))
    memory = int(done.stderr.split()[-1]) / 1000 if words else float("nan")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, memory


def commands(folder: Path, name: str) -> dict[str, list[str]]:
    """The measured commands by name, in their order."""
    launch, ours, runs = str(ROOT / "launch.py"), str(Path(__file__)), folder / "runs" / name
    shutil.rmtree(runs, ignore_errors=True)
    fields = ["--data.name", f"stepwise_{name}", "--data.data_dir", str(folder)]
    return {
        "train, first": [ours, "--worker", str(runs / "first"), *fields],
        "train": [ours, "--worker", str(runs / "again"), *fields],
        "evaluate": [launch, "evaluate", str(runs / "again")],
        "train, finished": [launch, "train", ours, "--workdir", str(runs / "again"), *fields],
        "plan": [launch, "plan", ours, *fields],
    }


def folder_commands(folder: Path, name: str) -> dict[str, list[str]]:
    """The commands that are measured on a folder of images, in their order."""
    launch, ours, data, runs = (
        str(ROOT / "launch.py"),
        str(Path(__file__)),
        folder / f"{name}_prepared",
        folder / "runs",
    )
    for old in (data, runs):
        shutil.rmtree(old, ignore_errors=True)
    fields = ["--data.name", "image_folder", "--data.root", str(folder / name), "--data.data_dir", str(data)]
    preparing = [launch, "prepare", "image_folder", "--from", str(folder / name), "--data-dir", str(data)]
    return {
        "plan": [launch, "plan", ours, *fields],
        "prepare": preparing,
        "prepare, again": preparing,
        "train, first": [ours, "--worker", str(runs / "first"), *fields],
        "train": [ours, "--worker", str(runs / "again"), *fields],
    }


def measure_all(options: argparse.Namespace) -> Iterator[tuple[str, int, float, float, float]]:
    """Rows of the table, as they are measured."""
    for examples in options.examples:
        name = f"growth_{examples}_{options.classes}"
        if options.image_folders:
            write_folder(options.data_dir / name, examples, options.classes)
            measured = folder_commands(options.data_dir, name)
        else:
            shutil.rmtree(options.data_dir / f"stepwise_{name}", ignore_errors=True)
            write_set(options.data_dir, name, examples, options.classes)
            measured = commands(options.data_dir, name)
        for command, words in measured.items():
            yield command, examples, *measure(words, options.limit)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder for the data sets and the runs")
    parser.add_argument("--examples", default="10000,100000,1280000", help="numbers with commas between")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--image-folders", action="store_true", help="measure folders of images and their preparation")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a command may take")
    options = parser.parse_args()
    options.examples = [int(word) for word in options.examples.split(",")]
    return options


def main() -> None:
    """Measure, and print a table in Markdown."""
    logging.getLogger("stepwise_jax").setLevel(logging.ERROR)
    if sys.argv[1:2] == ["--worker"]:
        until_first_step(sys.argv[3:], Path(sys.argv[2]))
        return
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for command, examples, seconds, cpu, memory in measure_all(_arguments()):
        print(f"| {command} | {examples:,} | {seconds:.1f} | {cpu:.1f} | {memory:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
