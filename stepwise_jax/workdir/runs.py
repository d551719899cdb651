"""Reads the folders of runs, finished or not, for reports and tables."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwise_jax.errors import InputError
from stepwise_jax.formatting import replace_unprintable
from stepwise_jax.workdir.files import CONFIG, RECORDS, SUMMARY
from stepwise_jax.workdir.json_files import read_json
from stepwise_jax.workdir.record_file import RunRecords, read_records
from stepwise_jax.workdir.records import Row

# Entries that are checked: of a stage in config.json, of an epoch in records.jsonl, and of summary.json.
_STAGE_NUMBERS = ("fraction", "examples", "batch_size", "learning_rate", "epochs", "updates", "samples", "noise_scale")
_EPOCH_NUMBERS = ("stage", "epoch", "step", "examples_seen", "learning_rate", "batch_size", "noise_scale")
_EPOCH_SCORES = ("train_loss", "test_loss", "top1", "top5", "best_top1")
_NOISE_NUMBERS = ("stage", "microbatches", "microbatch_size", "noise_scale", "rate_over_batch", "seconds")
_NOISE_INTERVALS = ("trace_interval", "squared_norm_interval", "b_simple_interval")
_SUMMARY_NUMBERS = ("top1", "best_top1", "samples", "updates")

READERS = 8
"""Threads that read runs: on a file system of another machine they would wait for one file after another."""


@dataclass(frozen=True)
class Run:
    """The contents of a run's folder, finished or not, with at least one finished epoch."""

    name: str
    """The folder's name, with as much of its path as distinguishes it from the other runs."""
    config: Row
    """The document `config.json`."""
    records: RunRecords
    summary: Row | None
    """The document `summary.json`; None if the run is unfinished."""
    folder: Path

    @property
    def stages(self) -> Sequence[Row]:
        """The planned stages."""
        return self.config["stages"]


def read_runs(workdirs: Iterable[Path]) -> tuple[Run, ...]:
    """Read the runs in these folders, in order, each folder once.

    Raises:
      InputError: for a folder that holds no run or has no finished epoch.
    """
    folders = tuple(dict.fromkeys(Path(workdir).resolve() for workdir in workdirs))
    names = map(replace_unprintable, _distinct_names(folders))
    with ThreadPoolExecutor(READERS) as pool:
        return tuple(pool.map(_read_run, folders, names))


def _read_run(workdir: Path, name: str) -> Run:
    config = read_json(workdir / CONFIG)
    if not isinstance(config, dict) or not {"experiment", "stages"} <= config.keys():
        raise InputError(f"{workdir / CONFIG} does not describe a run: it has no experiment and stages")
    records = read_records(workdir)
    if not records.epochs:
        raise InputError(f"{workdir} has no finished epoch yet: there is nothing to show")
    summary = read_json(workdir / SUMMARY) if (workdir / SUMMARY).exists() else None
    damaged = _damaged_file(config, records, summary)
    if damaged:
        raise _invalid(workdir / damaged)
    return Run(name, config, records, summary, workdir)


def read_summary(workdir: Path) -> Row:
    """Read the `summary.json` of a finished run.

    Raises:
      InputError: if it is missing or damaged.
    """
    summary = read_json(workdir / SUMMARY)
    if not _is_summary(summary):
        raise _invalid(workdir / SUMMARY)
    return summary


def _invalid(path: Path) -> InputError:
    return InputError(f"{path} is damaged: it is JSON, but entries are missing or of the wrong type")


def _damaged_file(config: Row, records: RunRecords, summary: Any) -> str | None:
    """The name of the first file that lacks entries of a run, or has other values in their place."""
    stages = config["stages"]
    valid = isinstance(stages, list) and stages and isinstance(config["experiment"], dict)
    if not valid or not all(_is_stage(stage) for stage in stages):
        return CONFIG
    if not all(_is_epoch(row) and 1 <= row["stage"] <= len(stages) for row in records.epochs):
        return RECORDS
    if not all(_is_noise(row) and 1 <= row["stage"] <= len(stages) for row in records.noise):
        return RECORDS
    if summary is None:
        return None
    if not (_is_summary(summary) and "stages" in summary):
        return SUMMARY
    # Records that were cut short would make a report of a run that was never made.
    return None if records.epochs[-1]["updates"] == summary["updates"] else RECORDS


def _is_stage(stage: Any) -> bool:
    return _has_numbers(stage, _STAGE_NUMBERS) and "name" in stage and isinstance(stage.get("milestones", []), list)


def _is_epoch(row: Row) -> bool:
    scored = all(isinstance(row[name], int | float | None) for name in _EPOCH_SCORES)
    return scored and _has_numbers(row, _EPOCH_NUMBERS) and _has_seconds(row)


def _is_noise(row: Row) -> bool:
    pairs = all(isinstance(row[name], list) and len(row[name]) == 2 for name in _NOISE_INTERVALS)
    return pairs and _has_numbers(row, _NOISE_NUMBERS)


def _is_summary(document: Any) -> bool:
    return _has_numbers(document, _SUMMARY_NUMBERS) and _has_seconds(document)


def _has_seconds(row: Row) -> bool:
    seconds = row.get("seconds")
    return isinstance(seconds, dict) and all(isinstance(each, int | float) for each in seconds.values())


def _has_numbers(row: Any, names: Iterable[str]) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(name), int | float) for name in names)


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, or as many parts as make all names different."""
    longest = max((len(folder.parts) for folder in folders), default=1)
    for parts in range(1, longest + 1):
        names = [str(Path(*folder.parts[-parts:])) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
